"""A loaded model: energies, forces and stresses of many structures at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from psiflow_core.components import Prediction, Predictor
from psiflow_core.structures import Array
from psiflow_mace._engine import o3, on, torch
from psiflow_mace._graphs import Graph, GraphBuilder, collate, minibatches
from psiflow_mace._model import Model

EDGE_FEATURES = 5_000_000
"""Largest number of values for the edges of a batch: edges × channels × spherical harmonics. [count]"""


class MacePredictor(Predictor):
    """A model on a device. Any mix of structures is predicted in as few batches as memory allows."""

    def __init__(self, model: Model, device: str) -> None:
        self._made_of = model, device
        self._device = on(device)
        self._network = model.network().to(self._device).eval().requires_grad_(False)
        self._energies = model.energies
        self._dtype = model.dtype
        self._builder = GraphBuilder(model.architecture["r_max"], model.numbers)
        self._scalars = _scalar_columns(self._network)
        self._max_edges = EDGE_FEATURES // _edge_width(model)
        self.cutoff = float(model.architecture["r_max"])

    @classmethod
    def of_file(cls, path: Path, device: str) -> MacePredictor:
        """The predictor of a model file."""
        return cls(Model.open(path), device)

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        if not structures:
            return []
        graphs = [self._builder.graph(atoms) for atoms in structures]
        return [prediction for batch in minibatches(graphs, self._max_edges) for prediction in self._predict(batch)]

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        """The scalar node features of all interactions, concatenated; each shape (atoms, features)."""
        if not structures:
            return []
        graphs = [self._builder.graph(atoms) for atoms in structures]
        return [features for batch in minibatches(graphs, self._max_edges) for features in self._features(batch)]

    def __reduce__(self) -> tuple[Any, ...]:
        return MacePredictor, self._made_of

    def _predict(self, graphs: Sequence[Graph]) -> list[Prediction]:
        tensors = collate(graphs, len(self._energies), self._dtype, self._device)
        periodic = any(graph.has_stress for graph in graphs)
        output = self._network(tensors, compute_stress=periodic)
        energies = output["interaction_energy"].detach().cpu().double().numpy()
        forces = output["forces"].detach().cpu().double().numpy()
        stresses = output["stress"].detach().cpu().double().numpy() if periodic else None
        ends = np.cumsum([len(graph) for graph in graphs])
        return [
            Prediction(
                energy=float(energies[k] + self._energies[graph.species].sum()),
                forces=forces[end - len(graph) : end],
                stress=full_3x3_to_voigt_6_stress(stresses[k]) if graph.has_stress and stresses is not None else None,
            )
            for k, (graph, end) in enumerate(zip(graphs, ends, strict=True))
        ]

    def _features(self, graphs: Sequence[Graph]) -> list[Array]:
        tensors = collate(graphs, len(self._energies), self._dtype, self._device)
        with torch.no_grad():
            output = self._network(tensors, compute_force=False)
        features = output["node_feats"][:, self._scalars].cpu().double().numpy()
        return np.split(features, np.cumsum([len(graph) for graph in graphs])[:-1])


def _scalar_columns(network: object) -> list[int]:
    """Columns of the node features that rotation does not change: the even scalars of every interaction."""
    columns: list[int] = []
    start = 0
    for product in network.products:  # type: ignore[attr-defined]
        irreps = o3.Irreps(product.linear.irreps_out)
        for (_, irrep), part in zip(irreps, irreps.slices(), strict=True):
            if irrep == o3.Irrep("0e"):
                columns.extend(range(start + part.start, start + part.stop))
        start += irreps.dim
    return columns


def _edge_width(model: Model) -> int:
    channels = o3.Irreps(model.architecture["hidden_irreps"]).count(o3.Irrep("0e"))
    return int(channels * (model.architecture["max_ell"] + 1) ** 2)
