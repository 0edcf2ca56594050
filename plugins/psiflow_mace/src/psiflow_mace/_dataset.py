"""Labelled structures as training examples, and the errors of a network on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from psiflow_core.errors import StructureError, TrainingFailed
from psiflow_core.potentials.residuals import Residual
from psiflow_core.structures import Array, label_of
from psiflow_mace._engine import DTYPES, torch
from psiflow_mace._graphs import Graph, GraphBuilder, Tensors, collate
from psiflow_mace._model import Model

ATOMS = 256
"""Atoms in one batch of an evaluation. [count]"""


@dataclass(frozen=True)
class Example:
    """A graph and its label."""

    graph: Graph
    energy: float
    """Relative to the isolated atoms. [eV]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array
    """Shape (3, 3); zero if there is none. [eV/Å³]"""
    stress_weight: float
    """1 if there is a stress to learn, else 0."""


def examples(structures: Sequence[Atoms], model: Model, where: str) -> list[Example]:
    """The structures as examples for a model.

    Raises:
        TrainingFailed: a structure has no label, a label that is not finite, or a species unknown to the model.
    """
    builder = GraphBuilder(model.architecture["r_max"], model.numbers)
    made = []
    for number, atoms in enumerate(structures):
        try:
            made.append(_example(atoms, builder, model.energies))
        except StructureError as error:
            raise TrainingFailed(f"{where} structure {number} ({atoms.get_chemical_formula()}): {error}") from None
    return made


def _example(atoms: Atoms, builder: GraphBuilder, energies: Array) -> Example:
    label = label_of(atoms)
    graph = builder.graph(atoms)
    stress = label.stress if graph.has_stress else None
    for value in (label.energy, label.forces, 0.0 if stress is None else stress):
        if not np.isfinite(value).all():
            raise StructureError("its label is not finite; label it again or leave it out")
    return Example(
        graph=graph,
        energy=label.energy - float(energies[graph.species].sum()),
        forces=label.forces,
        stress=np.zeros((3, 3)) if stress is None else voigt_6_to_full_3x3_stress(stress),
        stress_weight=0.0 if stress is None else 1.0,
    )


def loss(
    network: Any,
    weighted: Any,
    batch: Sequence[Example],
    model: Model,
    device: torch.device,
    stresses: bool,
    training: bool,
) -> torch.Tensor:
    """MACE's weighted loss of a batch."""
    from mace.tools.torch_geometric.data import Data

    tensors = collate([example.graph for example in batch], len(model.numbers), model.dtype, device)
    output = network(dict(tensors), training=training, compute_stress=stresses)
    output["energy"] = output["interaction_energy"]
    return weighted(pred=output, ref=Data(ptr=tensors["ptr"], **_labels(batch, model.dtype, device)))


def _labels(batch: Sequence[Example], dtype: str, device: torch.device) -> Tensors:
    ones = np.ones(len(batch))
    labels = {
        "energy": np.array([example.energy for example in batch]),
        "forces": np.concatenate([example.forces for example in batch]),
        "stress": np.stack([example.stress for example in batch]),
        "stress_weight": np.array([example.stress_weight for example in batch]),
        "weight": ones,
        "energy_weight": ones,
        "forces_weight": ones,
    }
    return {name: torch.from_numpy(value).to(device=device, dtype=DTYPES[dtype]) for name, value in labels.items()}


def residuals(network: Any, data: Sequence[Example], model: Model, device: torch.device) -> list[Residual]:
    """The residual of each example, computed in batches."""
    computed = []
    for batch in _by_atoms(data):
        stresses = any(example.stress_weight for example in batch)
        tensors = collate([example.graph for example in batch], len(model.numbers), model.dtype, device)
        output = network(tensors, compute_stress=stresses)
        energies = output["interaction_energy"].detach().cpu().double().numpy()
        forces = output["forces"].detach().cpu().double().numpy()
        stress = output["stress"].detach().cpu().double().numpy() if stresses else np.zeros((len(batch), 3, 3))
        ends = np.cumsum([len(example.graph) for example in batch])
        for k, (x, end) in enumerate(zip(batch, ends, strict=True)):
            computed.append(
                Residual(
                    energy=float(energies[k] - x.energy) / len(x.graph),
                    forces=forces[end - len(x.graph) : end] - x.forces,
                    stress=stress[k] - x.stress if x.stress_weight else None,
                )
            )
    return computed


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
