"""Labelled structures as training examples, and the loss and the errors of a network on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from psiflow_core.errors import StructureError, TrainingFailed
from psiflow_core.potentials.residuals import Residual
from psiflow_core.structures import Array, label_of
from psiflow_torch.architecture import Architecture
from psiflow_torch.engine import torch
from psiflow_torch.graphs import Graph, GraphBuilder, collate
from psiflow_torch.model import Model
from psiflow_torch.options import TorchOptions
from psiflow_torch.weighted import Labels

ATOMS = 256
"""Atoms in one batch of an evaluation. [count]"""


@dataclass(frozen=True)
class Example:
    """A graph and its label."""

    graph: Graph
    energy: float
    """Without the offsets of its atoms. [eV]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array
    """Shape (3, 3); zero if there is none. [eV/Å³]"""
    has_stress: bool
    """Whether there is a stress to learn."""


def examples(structures: Sequence[Atoms], model: Model, offsets: Array, where: str) -> list[Example]:
    """The structures as examples for a model.

    Args:
        offsets: energies by species that the network does not learn. [eV]
        where: the name of the set, for errors.

    Raises:
        TrainingFailed: a structure has no label, a label that is not finite, or a species unknown to the model.
    """
    builder = GraphBuilder(model.cutoff, model.symbols)
    made = []
    for number, atoms in enumerate(structures):
        try:
            made.append(_example(atoms, builder, offsets))
        except StructureError as error:
            raise TrainingFailed(f"{where} structure {number} ({atoms.get_chemical_formula()}): {error}") from None
    return made


def _example(atoms: Atoms, builder: GraphBuilder, offsets: Array) -> Example:
    label = label_of(atoms)
    graph = builder.graph(atoms)
    stress = label.stress if graph.has_stress else None
    for value in (label.energy, label.forces, 0.0 if stress is None else stress):
        if not np.isfinite(value).all():
            raise StructureError("its label is not finite; label it again or leave it out")
    return Example(
        graph=graph,
        energy=label.energy - float(offsets[graph.species].sum()),
        forces=label.forces,
        stress=np.zeros((3, 3)) if stress is None else voigt_6_to_full_3x3_stress(stress),
        has_stress=stress is not None,
    )


def labels(chosen: Sequence[Example], device: torch.device) -> Labels:
    """The labels of a batch of examples."""

    def there(values: Array) -> torch.Tensor:
        return torch.from_numpy(values).to(device)

    return Labels(
        energies=there(np.array([example.energy for example in chosen])),
        forces=there(np.concatenate([example.forces for example in chosen])),
        stresses=there(np.stack([example.stress for example in chosen])),
        known=there(np.array([float(example.has_stress) for example in chosen])),
    )


def residuals(
    architecture: Architecture, network: torch.nn.Module, data: Sequence[Example], device: torch.device
) -> list[Residual]:
    """The residual of each example, computed in batches."""
    return [one for batch in _by_atoms(data) for one in _of_batch(architecture, network, batch, device)]


def losses(found: Sequence[Residual], options: TorchOptions) -> list[float]:
    """The loss of each structure."""
    return [
        float(
            options.energy_weight * one.energy**2
            + options.forces_weight * np.mean(one.forces**2)
            + (0.0 if one.stress is None else options.stress_weight * np.mean(one.stress**2))
        )
        for one in found
    ]


def _of_batch(
    architecture: Architecture, network: torch.nn.Module, chosen: Sequence[Example], device: torch.device
) -> list[Residual]:
    stress = any(example.has_stress for example in chosen)
    batch = collate([example.graph for example in chosen], device)
    output = architecture.forward(network, batch, stress=stress, training=False)
    energies, forces = (value.detach().cpu().double().numpy() for value in (output.energies, output.forces))
    stresses = None if output.stresses is None else output.stresses.detach().cpu().double().numpy()
    ends = np.cumsum([len(example.graph) for example in chosen])
    return [
        Residual(
            energy=float(energies[k] - x.energy) / len(x.graph),
            forces=forces[end - len(x.graph) : end] - x.forces,
            stress=stresses[k] - x.stress if x.has_stress and stresses is not None else None,
        )
        for k, (x, end) in enumerate(zip(chosen, ends, strict=True))
    ]


def _by_atoms(data: Sequence[Example]) -> list[list[Example]]:
    batches: list[list[Example]] = []
    room = 0
    for example in data:
        if len(example.graph) > room:
            batches.append([])
            room = ATOMS
        batches[-1].append(example)
        room -= len(example.graph)
    return batches
