"""The contract of a network: how it is planned and built, and its energies, forces and stresses of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from psiflow_core.structures import Array, Plain
from psiflow_torch.engine import alone, precision, torch
from psiflow_torch.graphs import Batch, Integers
from psiflow_torch.model import Model


@dataclass(frozen=True)
class Statistics:
    """Of the training set."""

    force: float
    """RMS force component; 1 if all forces are round-off. [eV/Å]"""
    neighbours: Integers
    """Neighbours of each atom, shape (atoms of all structures,)."""


@dataclass(frozen=True)
class Output:
    """The network's answer for a batch."""

    energies: torch.Tensor
    """Shape (structures,), without `Architecture.offsets`. [eV]"""
    forces: torch.Tensor
    """Shape (atoms, 3). [eV/Å]"""
    stresses: torch.Tensor | None
    """Shape (structures, 3, 3), where they were asked for. [eV/Å³]"""


class Architecture(ABC):
    """A family of networks.

    An author writes `plan`, `build` and `energies`. Forces and stresses follow by automatic differentiation; a network
    that gives them itself replaces `forward`. An instance is pickled with each predictor, so it holds no network.
    """

    edge_values: ClassVar[int] = 5_000_000
    """Largest number of values for the edges of one batch of predictions; see `edge_width`. [count]"""

    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions on whose versions compiled code depends, this one's included."""
    in_tensors: ClassVar[tuple[str, ...]] = ()
    """Entries of a plan that `traceable` keeps in tensors: compiled code does not depend on them."""

    @abstractmethod
    def plan(self, options: Any, energies: Mapping[str, float], statistics: Statistics) -> Plain:
        """The arguments of the network, as plain data.

        Args:
            options: the potential, with its options.
            energies: of the isolated atoms, by chemical symbol, in the order of the network's species. [eV]
        """

    def build(self, plan: Plain) -> torch.nn.Module:
        """A new network, with torch's default dtype and random numbers."""
        raise NotImplementedError("an architecture defines build, or new")

    def new(self, plan: Plain, dtype: str, seed: int = 0) -> torch.nn.Module:
        """A new network with random weights from the seed; torch's own generators and settings stay as they are.

        An architecture whose library has settings of its own replaces it, within `psiflow_torch.engine.alone`.
        """
        with alone(), precision(dtype), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(plan)

    def energies(self, network: torch.nn.Module, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """The energy of each structure, shape (structures,), of atoms relative to isolated ones. [eV]

        Args:
            vectors: from the centre to the neighbour of each edge, shape (edges, 3), in the network's precision. [Å]
        """
        raise NotImplementedError("an architecture defines energies, or forward")

    def traced(self, network: torch.nn.Module, batch: Batch, *, training: bool) -> Output:
        """The output of a `traceable` network, with stresses."""
        return Architecture.forward(self, network, batch, stress=True, training=training)

    def forward(self, network: torch.nn.Module, batch: Batch, *, stress: bool, training: bool) -> Output:
        """Energies, forces and stresses of a batch.

        Args:
            stress: whether stresses are needed.
            training: whether the result is differentiated once more, with respect to the weights.
        """
        dtype = next(network.parameters()).dtype
        positions = batch.positions.to(dtype).requires_grad_()
        strain = torch.zeros_like(batch.cells, dtype=dtype).requires_grad_()
        symmetric = (strain + strain.transpose(1, 2)) / 2
        centres, neighbours = batch.edges
        vectors = positions[neighbours] - positions[centres] + batch.shifts.to(dtype)
        if stress:
            vectors = vectors + torch.einsum("ei,eij->ej", vectors, symmetric[batch.structure[centres]])
        energies = self.energies(network, batch, vectors)
        by = [positions, strain] if stress else [positions]
        slopes = torch.autograd.grad(energies.sum(), by, create_graph=training, allow_unused=True)
        forces = torch.zeros_like(positions) if slopes[0] is None else -slopes[0]
        if not stress:
            return Output(energies, forces, None)
        virial = torch.zeros_like(strain) if slopes[1] is None else slopes[1]
        a, b, c = batch.cells.unbind(1)
        volumes = (torch.linalg.cross(a, b) * c).sum(1).abs().to(dtype)
        return Output(energies, forces, virial / volumes[:, None, None])

    def traceable(self, model: Model) -> torch.nn.Module:
        """A network with these weights for `energies` in plain operations, which can be traced and compiled.

        TorchScript cannot, and numbers that differ between models have to be in tensors. The caller copies what it
        keeps: the network may be used again for another model.
        """
        return self.network(model)

    def features(self, network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Values of each atom that rotation does not change, shape (atoms, features)."""
        raise NotImplementedError("the architecture has no features")

    def network(self, model: Model) -> torch.nn.Module:
        """A new network with the weights of a model."""
        network = self.new(model.plan, model.dtype)
        network.load_state_dict(model.weights)
        return network

    def offsets(self, model: Model) -> Array:
        """Energies that are added for each atom in float64, by species, shape (species,). [eV]"""
        return model.energies

    def edge_width(self, model: Model) -> int:
        """The number of values that the network holds for an edge: it decides how many fit a batch."""
        return 64

    def parameter_groups(self, network: torch.nn.Module, options: Any) -> list[dict[str, Any]]:
        """The weights in groups with their settings of Adam, such as their weight decay."""
        return [{"params": list(network.parameters())}]
