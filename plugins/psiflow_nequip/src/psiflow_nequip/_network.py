"""The networks of NequIP and Allegro: their builders, and their answers for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from psiflow_torch.architecture import Architecture, Output, Statistics
from psiflow_torch.engine import Tensors, alone, torch
from psiflow_torch.graphs import Batch
from psiflow_torch.model import Model

from psiflow_core.structures import Array, Plain
from psiflow_nequip._engine import BUILDERS, prepared, quiet
from psiflow_nequip.options import EquivariantOptions


@dataclass(frozen=True)
class EquivariantNetwork(Architecture):
    """The network of one of the libraries' model builders; it holds the energies of isolated atoms itself."""

    libraries: ClassVar[tuple[str, ...]] = ("nequip", "nequip-allegro", "e3nn", "psiflow-nequip")
    in_tensors: ClassVar[tuple[str, ...]] = ("avg_num_neighbors", "per_type_energy_scales", "per_type_energy_shifts")

    potential: str
    """`"nequip"` or `"allegro"`."""

    def plan(self, options: EquivariantOptions, energies: Mapping[str, float], statistics: Statistics) -> Plain:
        """Arguments of the library's model builder; the mean number of neighbours is that of `nequip-train`."""
        mean = float(statistics.neighbours.mean())
        return {
            **options.network(),
            "type_names": list(energies),
            "avg_num_neighbors": mean if mean > 0 else 1.0,
            "per_type_energy_scales": statistics.force,
            "per_type_energy_shifts": dict(energies),
        }

    def new(self, plan: Plain, dtype: str, seed: int = 0) -> torch.nn.Module:
        """By the library's builder, with its settings of the process."""
        with alone(), prepared(), quiet():
            return BUILDERS[self.potential](seed=seed, model_dtype=dtype, **plan)

    def forward(self, network: torch.nn.Module, batch: Batch, *, stress: bool, training: bool) -> Output:
        return output(network(inputs(batch)))

    def traced(self, network: torch.nn.Module, batch: Batch, *, training: bool) -> Output:
        return self.forward(network, batch, stress=True, training=training)

    def offsets(self, model: Model) -> Array:
        """None: the network sums them itself, in float64."""
        return np.zeros(len(model.symbols))

    def features(self, network: Any, batch: Batch) -> torch.Tensor:
        """The inputs of the energy readout: an atom's scalars (NequIP), or the sum of its pairs' scalars (Allegro)."""
        held = network.model.func(inputs(batch))
        if "edge_features" not in held:
            features: torch.Tensor = held["node_features"]
            return features
        pairs = held["edge_features"]
        sums = pairs.new_zeros(len(batch.positions), pairs.shape[1])
        return sums.index_add(0, batch.edges[0], pairs)

    def edge_width(self, model: Model) -> int:
        """Features × spherical harmonics."""
        shape = model.shape
        features = shape["num_features"] if "num_features" in shape else shape["num_tensor_features"]
        return int(features * (1 + shape["parity"]) * (shape["l_max"] + 1) ** 2)


def inputs(batch: Batch) -> Tensors:
    """A batch in the form that NequIP's `forward` takes."""
    return {
        "pos": batch.positions,
        "atom_types": batch.species,
        "edge_index": batch.edges,
        "edge_cell_shift": batch.unit_shifts,
        "cell": batch.cells,
        "batch": batch.structure,
        "num_atoms": batch.sizes,
    }


def output(held: Tensors) -> Output:
    """The library's results for a batch."""
    return Output(held["total_energy"].view(-1), held["forces"], held["stress"])
