"""A loaded model: energies, forces and stresses of many structures at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from psiflow_core.components import Prediction, Predictor
from psiflow_core.structures import Array
from psiflow_torch.architecture import Architecture, Output
from psiflow_torch.compiled import Code, Compiled
from psiflow_torch.engine import on, torch
from psiflow_torch.graphs import Batch, Graph, GraphBuilder, collate, minibatches
from psiflow_torch.model import Model
from psiflow_torch.programs import PROGRAMS, Inputs, flat
from psiflow_torch.swift import Choice, Swift


class TorchPredictor(Predictor):
    """A model on a device. Any mix of structures is predicted in as few batches as memory allows."""

    def __init__(self, architecture: Architecture, model: Model, device: str, compile: Choice = "never") -> None:
        self._made_of: tuple[Any, ...] = (architecture, model, device, compile)
        self._architecture = architecture
        self._device = on(device)
        self._network = architecture.network(model).to(self._device).eval().requires_grad_(False)
        self._offsets = architecture.offsets(model)
        self._builder = GraphBuilder(model.cutoff, model.symbols)
        self._max_edges = architecture.edge_values // architecture.edge_width(model)
        make = partial(Code, PROGRAMS["predictions"], architecture, model, self._device, self._eager)
        self._swift = Swift(make, compile, model.potential)
        self.cutoff = model.cutoff

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [prediction for batch in self._batches(structures) for prediction in self._predict(batch)]

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        """The architecture's features of each structure's atoms; each shape (atoms, features)."""
        return [features for batch in self._batches(structures) for features in self._features(batch)]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of

    def _batches(self, structures: Sequence[Atoms]) -> list[Sequence[Graph]]:
        if not structures:
            return []
        graphs = [self._builder.graph(atoms) for atoms in structures]
        return list(minibatches(graphs, self._max_edges))

    def _predict(self, graphs: Sequence[Graph]) -> list[Prediction]:
        output = self._output(collate(graphs, self._device), stress=any(graph.has_stress for graph in graphs))
        energies, forces = (value.detach().cpu().double().numpy() for value in (output.energies, output.forces))
        stresses = None if output.stresses is None else output.stresses.detach().cpu().double().numpy()
        ends = np.cumsum([len(graph) for graph in graphs])
        return [
            Prediction(
                energy=float(energies[k] + self._offsets[graph.species].sum()),
                forces=forces[end - len(graph) : end],
                stress=full_3x3_to_voigt_6_stress(stresses[k]) if graph.has_stress and stresses is not None else None,
            )
            for k, (graph, end) in enumerate(zip(graphs, ends, strict=True))
        ]

    def _output(self, batch: Batch, stress: bool) -> Output:
        compiled = self._swift.compiled
        if compiled is not None and batch.edges.shape[1] > 1:  # the code is compiled for sizes of two and more
            return _asked(compiled, batch)
        with self._swift.counting():
            return self._architecture.forward(self._network, batch, stress=stress, training=False)

    def _eager(self, inputs: Inputs) -> Inputs:
        output = self._architecture.forward(self._network, Batch(*inputs), stress=True, training=False)
        assert output.stresses is not None
        return output.energies, output.forces, output.stresses

    def _features(self, graphs: Sequence[Graph]) -> list[Array]:
        with torch.no_grad():
            features = self._architecture.features(self._network, collate(graphs, self._device))
        return np.split(features.cpu().double().numpy(), np.cumsum([len(graph) for graph in graphs])[:-1])


def _asked(compiled: Compiled, batch: Batch) -> Output:
    if batch.count > 1:
        return Output(*compiled(*flat(batch)))
    energies, forces, stresses = compiled(*flat(_with_a_lone_atom(batch)))
    return Output(energies[:1], forces[:-1], stresses[:1])


def _with_a_lone_atom(batch: Batch) -> Batch:
    """Add a second structure: an atom without neighbours."""

    def more(values: torch.Tensor, value: float) -> torch.Tensor:
        return torch.cat([values, values.new_full((1, *values.shape[1:]), value)])

    return Batch(
        positions=more(batch.positions, 0.0),
        species=more(batch.species, 0),
        edges=batch.edges,
        unit_shifts=batch.unit_shifts,
        shifts=batch.shifts,
        cells=torch.cat([batch.cells, torch.eye(3).to(batch.cells)[None]]),
        structure=more(batch.structure, 1),
        sizes=more(batch.sizes, 1),
    )
