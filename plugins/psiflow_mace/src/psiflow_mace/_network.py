"""MACE's network: its plan and builder, and its answer for a batch."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from psiflow_torch.architecture import Architecture, Output, Statistics
from psiflow_torch.engine import Tensors, alone, torch
from psiflow_torch.graphs import Batch
from psiflow_torch.model import Model

from psiflow_core.structures import Plain, canonical
from psiflow_mace._engine import modules, o3, quiet
from psiflow_mace.options import MaceOptions

NAMED = {
    "interaction_cls": modules.interaction_classes,
    "interaction_cls_first": modules.interaction_classes,
    "readout_cls": modules.readout_classes,
    "gate": modules.gate_dict,
}
"""The arguments of the builder that are classes or functions, and their names."""


class MaceNetwork(Architecture):
    """`mace.modules.ScaleShiftMACE` without atomic energies, which are added in float64."""

    def plan(self, options: MaceOptions, energies: Mapping[str, float], statistics: Statistics) -> Plain:
        """Arguments of `ScaleShiftMACE`, classes and irreps by name.

        They are `--model MACE` of `mace_run_train`: the first interaction has no self-connection and there is no
        shift, so that the network adds nothing to the energy of an atom without neighbours. The mean number of
        neighbours is that of the atoms that have some, as there.
        """
        irreps = (o3.Irreps.spherical_harmonics(options.max_L) * options.num_channels).sort().irreps.simplify()
        some = statistics.neighbours[statistics.neighbours > 0]
        return {
            "r_max": options.r_max,
            "num_bessel": options.num_radial_basis,
            "num_polynomial_cutoff": options.num_cutoff_basis,
            "max_ell": options.max_ell,
            "interaction_cls": "RealAgnosticResidualInteractionBlock",
            "interaction_cls_first": "RealAgnosticInteractionBlock",
            "num_interactions": options.num_interactions,
            "hidden_irreps": str(irreps),
            "MLP_irreps": f"{options.readout_channels}x0e",
            "avg_num_neighbors": float(some.mean()) if len(some) else 1.0,
            "atomic_numbers": [int(atomic_numbers[symbol]) for symbol in energies],
            "correlation": options.correlation,
            "gate": "silu",
            "use_reduced_cg": False,
            "atomic_inter_scale": statistics.force,
            "atomic_inter_shift": 0.0,
        }

    def build(self, plan: Plain) -> torch.nn.Module:
        arguments = dict(plan)
        for key, known in NAMED.items():
            if key in arguments:
                arguments[key] = known[arguments[key]]
        for key in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
            if arguments.get(key) is not None:
                arguments[key] = o3.Irreps(arguments[key])
        count = len(plan["atomic_numbers"])
        with quiet():
            return modules.ScaleShiftMACE(num_elements=count, atomic_energies=np.zeros(count), **arguments)

    def network(self, model: Model) -> torch.nn.Module:
        """Networks that differ only in numbers are built once and copied."""
        frame = {**model.plan, "avg_num_neighbors": 1.0, "atomic_inter_scale": 1.0}
        with alone(), quiet():
            network: Any = copy.deepcopy(_skeleton(canonical(frame), model.dtype))
        for interaction in network.interactions:
            interaction.avg_num_neighbors = model.plan["avg_num_neighbors"]
        network.load_state_dict(model.weights)  # the scale is one of them
        return network

    def forward(self, network: torch.nn.Module, batch: Batch, *, stress: bool, training: bool) -> Output:
        output = network(inputs(network, batch), training=training, compute_stress=stress)
        return Output(output["interaction_energy"], output["forces"], output["stress"] if stress else None)

    def features(self, network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The scalar node features of all interactions, concatenated."""
        output = network(inputs(network, batch), compute_force=False)
        features: torch.Tensor = output["node_feats"][:, _scalar_columns(network)]
        return features

    def edge_width(self, model: Model) -> int:
        """Channels × spherical harmonics."""
        channels = o3.Irreps(model.plan["hidden_irreps"]).count(o3.Irrep("0e"))
        return int(channels * (model.plan["max_ell"] + 1) ** 2)

    def parameter_groups(self, network: torch.nn.Module, options: MaceOptions) -> list[dict[str, Any]]:
        """Weight decay on the weights that `mace_run_train` decays."""
        decayed: list[torch.Tensor] = []
        free: list[torch.Tensor] = []
        for name, parameter in network.named_parameters():
            inside = name.startswith("interactions.") and ("linear.weight" in name or "skip_tp_full.weight" in name)
            (decayed if inside or name.startswith("products.") else free).append(parameter)
        return [
            {"params": decayed, "weight_decay": options.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]


def inputs(network: Any, batch: Batch) -> Tensors:
    """A batch in the form that MACE's `forward` takes."""
    like = next(network.parameters())

    def real(values: torch.Tensor) -> torch.Tensor:
        return values.to(like.dtype)

    ends = torch.cumsum(batch.sizes, 0)
    return {
        "positions": real(batch.positions),
        "node_attrs": torch.nn.functional.one_hot(batch.species, len(network.atomic_numbers)).to(like.dtype),
        "edge_index": batch.edges,
        "unit_shifts": real(batch.unit_shifts),
        "shifts": real(batch.shifts),
        "cell": real(batch.cells.reshape(-1, 3)),
        "batch": batch.structure,
        "ptr": torch.cat([ends.new_zeros(1), ends]),
    }


def _scalar_columns(network: Any) -> list[int]:
    """Columns of the node features that rotation does not change: the even scalars of every interaction."""
    columns: list[int] = []
    start = 0
    for product in network.products:
        irreps = o3.Irreps(product.linear.irreps_out)
        for (_, irrep), part in zip(irreps, irreps.slices(), strict=True):
            if irrep == o3.Irrep("0e"):
                columns.extend(range(start + part.start, start + part.stop))
        start += irreps.dim
    return columns


@lru_cache(maxsize=4)
def _skeleton(plan: bytes, dtype: str) -> torch.nn.Module:
    return MaceNetwork().new(json.loads(plan), dtype)
