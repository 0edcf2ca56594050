"""MACE's network: its plan and builder, and its answer for a batch."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from ase.data import atomic_numbers
from psiflow_torch.architecture import Architecture, Statistics
from psiflow_torch.engine import DTYPES, Tensors, alone, torch
from psiflow_torch.graphs import Batch
from psiflow_torch.model import Model

from psiflow_core.structures import Plain, canonical
from psiflow_mace._engine import disable_e3nn_codegen, modules, o3, quiet
from psiflow_mace._harmonics import SphericalHarmonics
from psiflow_mace.options import MaceOptions

NAMED = {
    "interaction_cls": modules.interaction_classes,
    "interaction_cls_first": modules.interaction_classes,
    "readout_cls": modules.readout_classes,
    "gate": modules.gate_dict,
}
"""The arguments of the builder that are classes or functions, and their names."""

OWN = ("avg_num_neighbors", "coupling_2", "coupling_3", "coupling_4")
"""The last words of the names of tensors that the traceable network has besides MACE's."""


class MaceNetwork(Architecture):
    """`mace.modules.ScaleShiftMACE` without atomic energies, which are added in float64."""

    libraries: ClassVar[tuple[str, ...]] = ("mace-torch", "e3nn", "psiflow-mace")
    in_tensors: ClassVar[tuple[str, ...]] = (
        "avg_num_neighbors",
        "atomic_inter_scale",
        "atomic_inter_shift",
        "atomic_numbers",
    )

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
        with alone(), quiet():
            network: Any = copy.deepcopy(_skeleton(_frame(model), model.dtype))
        for interaction in network.interactions:
            interaction.avg_num_neighbors = model.plan["avg_num_neighbors"]
        network.load_state_dict(model.weights)  # the scale is one of them
        return network

    def traceable(self, model: Model) -> torch.nn.Module:
        """Without TorchScript, and with the mean numbers of neighbours in tensors."""
        network = _traceable(_frame(model), model.dtype)
        loaded = network.load_state_dict(model.weights, strict=False)
        assert not loaded.unexpected_keys
        assert all(key.endswith(OWN) for key in loaded.missing_keys)
        for interaction in network.interactions:
            interaction.avg_num_neighbors.fill_(model.plan["avg_num_neighbors"])
        return network

    def energies(self, network: Any, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """As `ScaleShiftMACE.forward`, from the vectors between neighbours on."""
        species = one_hot(network, batch, vectors.dtype)
        lengths = torch.linalg.norm(vectors, dim=1, keepdim=True)
        harmonics = network.spherical_harmonics(vectors)
        radial, cutoff = network.radial_embedding(lengths, species, batch.edges, network.atomic_numbers)
        features, heads = network.node_embedding(species), torch.zeros_like(batch.species)
        all_features = []
        for number, interaction in enumerate(network.interactions):
            features, kept = interaction(
                node_attrs=species,
                node_feats=features,
                edge_attrs=harmonics,
                edge_feats=radial,
                edge_index=batch.edges,
                cutoff=cutoff,
                first_layer=number == 0,
            )
            features = network.products[number](node_feats=features, sc=kept, node_attrs=species)
            all_features.append(features)
        read = all_features if len(network.readouts) > 1 else all_features[-1:]
        energies = vectors.new_zeros(batch.species.shape[0])
        for readout, features in zip(network.readouts, read, strict=True):
            energies = energies + readout(features, heads)[:, 0]
        if hasattr(network, "pair_repulsion"):
            energies = energies + network.pair_repulsion_fn(lengths, species, batch.edges, network.atomic_numbers)
        scaled = network.scale_shift(energies, heads)
        return scaled.new_zeros(batch.count).index_add(0, batch.structure, scaled)

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
        "node_attrs": one_hot(network, batch, like.dtype),
        "edge_index": batch.edges,
        "unit_shifts": real(batch.unit_shifts),
        "shifts": real(batch.shifts),
        "cell": real(batch.cells.reshape(-1, 3)),
        "batch": batch.structure,
        "ptr": torch.cat([ends.new_zeros(1), ends]),
    }


def one_hot(network: Any, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
    """The species of each atom, shape (atoms, species)."""
    return torch.nn.functional.one_hot(batch.species, len(network.atomic_numbers)).to(dtype)


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


def _frame(model: Model) -> bytes:
    """The plan without its numbers: networks that differ only in them are built once."""
    return canonical({**model.plan, "avg_num_neighbors": 1.0, "atomic_inter_scale": 1.0})


@lru_cache(maxsize=4)
def _skeleton(plan: bytes, dtype: str) -> torch.nn.Module:
    return MaceNetwork().new(json.loads(plan), dtype)


@lru_cache(maxsize=4)
def _traceable(plan: bytes, dtype: str) -> Any:
    """It cannot be copied: a copy of e3nn's modules is TorchScript."""
    with quiet(), disable_e3nn_codegen():
        network: Any = MaceNetwork().new(json.loads(plan), dtype)
    network.spherical_harmonics = SphericalHarmonics(network.spherical_harmonics._lmax).to(DTYPES[dtype])
    for interaction in network.interactions:
        del interaction.avg_num_neighbors
        interaction.register_buffer("avg_num_neighbors", torch.ones((), dtype=DTYPES[dtype]))
    return network
