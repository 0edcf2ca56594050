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
from psiflow_nequip._compiled import CompiledNetwork
from psiflow_nequip._engine import on, torch
from psiflow_nequip._graphs import Graph, GraphBuilder, Tensors, collate, minibatches
from psiflow_nequip._model import Model

EDGE_FEATURES = 5_000_000
"""Largest number of values for the edges of a batch: edges × features × spherical harmonics. [count]"""


class NequipPredictor(Predictor):
    """A model on a device. Any mix of structures is predicted in as few batches as memory allows."""

    def __init__(self, model: Model, device: str, compiled: bool = False) -> None:
        self._made_of = model, device, compiled
        self._device = on(device)
        self._network = model.network().to(self._device).eval().requires_grad_(False)
        self._ask = CompiledNetwork(model, self._network, self._device) if compiled else self._network
        self._builder = GraphBuilder(model.cutoff, model.symbols)
        self._max_edges = EDGE_FEATURES // _edge_width(model)
        self.cutoff = model.cutoff

    @classmethod
    def of_file(cls, path: Path, potential: str, device: str, compiled: bool) -> NequipPredictor:
        """The predictor of a model file."""
        return cls(Model.open(path, potential), device, compiled)

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        if not structures:
            return []
        graphs = [self._builder.graph(atoms) for atoms in structures]
        return [prediction for batch in minibatches(graphs, self._max_edges) for prediction in self._predict(batch)]

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        """The inputs of the energy readout: an atom's scalars (NequIP), or the sum of its pairs' scalars (Allegro)."""
        if not structures:
            return []
        graphs = [self._builder.graph(atoms) for atoms in structures]
        return [features for batch in minibatches(graphs, self._max_edges) for features in self._features(batch)]

    def __reduce__(self) -> tuple[Any, ...]:
        return NequipPredictor, self._made_of

    def _predict(self, graphs: Sequence[Graph]) -> list[Prediction]:
        output = self._ask(collate(graphs, self._device))
        energies = output["total_energy"].detach().view(-1).cpu().numpy()
        forces, stresses = (output[name].detach().cpu().numpy() for name in ("forces", "stress"))
        ends = np.cumsum([len(graph) for graph in graphs])
        return [
            Prediction(
                energy=float(energies[k]),
                forces=forces[end - len(graph) : end],
                stress=full_3x3_to_voigt_6_stress(stresses[k]) if graph.has_stress else None,
            )
            for k, (graph, end) in enumerate(zip(graphs, ends, strict=True))
        ]

    def _features(self, graphs: Sequence[Graph]) -> list[Array]:
        with torch.no_grad():
            output = self._network.model.func(collate(graphs, self._device))
        features = _of_atoms(output).cpu().double().numpy()
        return np.split(features, np.cumsum([len(graph) for graph in graphs])[:-1])


def _of_atoms(output: Tensors) -> torch.Tensor:
    if "edge_features" not in output:
        return output["node_features"]
    pairs = output["edge_features"]
    sums = pairs.new_zeros(len(output["pos"]), pairs.shape[1])
    return sums.index_add(0, output["edge_index"][0], pairs)


def _edge_width(model: Model) -> int:
    shape = model.shape
    features = shape["num_features"] if "num_features" in shape else shape["num_tensor_features"]
    return int(features * (1 + shape["parity"]) * (shape["l_max"] + 1) ** 2)
