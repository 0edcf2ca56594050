"""Labelled structures as examples to learn from, and the errors that a network makes on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from psiflow_core.errors import StructureError, TrainingFailed
from psiflow_core.structures import Array, label_of
from psiflow_nequip._engine import torch
from psiflow_nequip._graphs import Graph, GraphBuilder, Tensors, collate
from psiflow_nequip._model import Model

if TYPE_CHECKING:
    from psiflow_nequip.potential import Equivariant

ATOMS = 256
"""Atoms that are evaluated in one batch. [count]"""


@dataclass(frozen=True)
class Example:
    """A graph and what the reference says of it."""

    graph: Graph
    energy: float
    """[eV]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array
    """Shape (3, 3); zero where there is none. [eV/Å³]"""
    stress_weight: float
    """1 if there is a stress to learn, else 0."""


def examples(structures: Sequence[Atoms], model: Model, where: str) -> list[Example]:
    """The structures as examples for a model.

    Raises:
        TrainingFailed: one has no label, one that is not finite, or a species that the model does not know.
    """
    builder = GraphBuilder(model.cutoff, model.symbols)
    found = []
    for number, atoms in enumerate(structures):
        try:
            found.append(_example(atoms, builder))
        except StructureError as error:
            raise TrainingFailed(f"{where} structure {number} ({atoms.get_chemical_formula()}): {error}") from None
    return found


def _example(atoms: Atoms, builder: GraphBuilder) -> Example:
    label = label_of(atoms)
    graph = builder.graph(atoms)
    stress = label.stress if graph.has_stress else None
    for value in (label.energy, label.forces, 0.0 if stress is None else stress):
        if not np.isfinite(value).all():
            raise StructureError("its label is not finite; label it again or leave it out")
    return Example(
        graph=graph,
        energy=label.energy,
        forces=label.forces,
        stress=np.zeros((3, 3)) if stress is None else voigt_6_to_full_3x3_stress(stress),
        stress_weight=0.0 if stress is None else 1.0,
    )


def loss(network: Any, batch: Sequence[Example], options: Equivariant, device: torch.device) -> torch.Tensor:
    """Weighted squared errors: energies per atom, force components, and the stresses that are known."""
    tensors = collate([example.graph for example in batch], device)
    labels = _labels(batch, device)
    output = network(tensors)
    energy = (output["total_energy"].view(-1) - labels["energy"]) / tensors["num_atoms"]
    forces = output["forces"] - labels["forces"]
    total = options.energy_weight * energy.square().mean() + options.forces_weight * forces.square().mean()
    if any(example.stress_weight for example in batch):
        stress = labels["stress_weight"] * (output["stress"] - labels["stress"])
        total = total + options.stress_weight * stress.square().mean()
    return total


def _labels(batch: Sequence[Example], device: torch.device) -> Tensors:
    labels = {
        "energy": np.array([example.energy for example in batch]),
        "forces": np.concatenate([example.forces for example in batch]),
        "stress": np.stack([example.stress for example in batch]),
        "stress_weight": np.array([example.stress_weight for example in batch])[:, None, None],
    }
    return {name: torch.from_numpy(value).to(device) for name, value in labels.items()}


class Residual(NamedTuple):
    """How far a prediction is from a label."""

    energy: float
    """[eV/atom]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array | None
    """None where the label has none. [eV/Å³]"""


def residuals(network: Any, data: Sequence[Example], device: torch.device) -> list[Residual]:
    """One for each example, in batches."""
    found = []
    for batch in _by_atoms(data):
        output = network(collate([example.graph for example in batch], device))
        energies = output["total_energy"].detach().view(-1).cpu().numpy()
        forces, stress = (output[name].detach().cpu().numpy() for name in ("forces", "stress"))
        ends = np.cumsum([len(example.graph) for example in batch])
        for k, (x, end) in enumerate(zip(batch, ends, strict=True)):
            found.append(
                Residual(
                    energy=float(energies[k] - x.energy) / len(x.graph),
                    forces=forces[end - len(x.graph) : end] - x.forces,
                    stress=stress[k] - x.stress if x.stress_weight else None,
                )
            )
    return found


def errors(found: Sequence[Residual]) -> dict[str, float]:
    """Root mean square and mean absolute errors: forces [eV/Å], energies [eV/atom], stresses [eV/Å³]."""
    forces = np.concatenate([one.forces for one in found])
    energy = np.array([one.energy for one in found])
    stress = [one.stress for one in found if one.stress is not None]
    told = {
        "force_rmse": _rms(forces),
        "force_mae": float(np.abs(forces).mean()),
        "energy_rmse": _rms(energy),
        "energy_mae": float(np.abs(energy).mean()),
    }
    return told | ({"stress_rmse": _rms(np.array(stress))} if stress else {})


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


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
