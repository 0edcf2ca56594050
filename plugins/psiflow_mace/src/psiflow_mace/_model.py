"""A model: its architecture as plain data, its weights, and the energies of isolated atoms."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from psiflow_core.errors import ModelCorrupt
from psiflow_core.files import write_atomically
from psiflow_core.structures import Array, Plain, canonical
from psiflow_mace._engine import DTYPES, modules, o3, precision, quiet, torch
from psiflow_mace._graphs import Tensors
from psiflow_mace.options import MaceOptions

FORMAT = "psiflow-mace 1"
"""A mark in every model file; the number changes with the format."""

SHAPE = (
    "r_max",
    "num_channels",
    "max_L",
    "num_interactions",
    "correlation",
    "max_ell",
    "num_radial_basis",
    "num_cutoff_basis",
    "readout_channels",
    "dtype",
)
"""The options that a parent and its child must share: they decide the number and meaning of the weights."""

FOUNDATION_SHAPE = ("foundation_digest", "dtype")
"""The same if a foundation model decides the architecture."""


@dataclass(frozen=True)
class Model:
    """A trained network without torch's modules: the contents of a model file."""

    architecture: Plain
    """Arguments of `mace.modules.ScaleShiftMACE`, classes and irreps by name; no atomic energies."""
    atomic_energies: dict[str, float]
    """By chemical symbol, added to the network's energy in float64: those of isolated atoms, or, after a start from a
    foundation model, those fitted to the labels. [eV]"""
    dtype: str
    shape: Plain
    """The options that decided the architecture: `SHAPE`, or `FOUNDATION_SHAPE`."""
    weights: Tensors
    """The network's state dict."""

    @property
    def numbers(self) -> list[int]:
        """Atomic numbers of all known species, in the network's order."""
        return list(self.architecture["atomic_numbers"])

    @property
    def energies(self) -> Array:
        """Energies of the isolated atoms in the network's order. [eV]"""
        return np.array([self.atomic_energies[chemical_symbols[z]] for z in self.numbers])

    def network(self) -> Any:
        """A new network with these weights; networks that differ only in numbers are built once and copied."""
        frame = {**self.architecture, "avg_num_neighbors": 1.0, "atomic_inter_scale": 1.0}
        with quiet():
            network = copy.deepcopy(_skeleton(canonical(frame), self.dtype))
        for interaction in network.interactions:
            interaction.avg_num_neighbors = self.architecture["avg_num_neighbors"]
        network.load_state_dict(self.weights)  # the scale is one of them
        return network

    def save(self, path: Path) -> None:
        """Write the file completely or not at all; equal models give equal bytes."""
        content = io.BytesIO()  # torch.save would put the file's own name into it
        torch.save({"format": FORMAT, **vars(self)}, content)
        write_atomically(path, content.getvalue())

    @classmethod
    def open(cls, path: Path) -> Model:
        """Read a model file; only tensors and plain data are accepted, so that it cannot run code.

        Raises:
            ModelCorrupt: the file is missing or damaged, or it is not a model file of this plugin.
        """
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
            if held.pop("format") != FORMAT:
                raise ValueError("it has another format")
        except Exception as error:  # torch may raise anything for a foreign file
            raise ModelCorrupt(f"{path} is not a model of potential 'mace': {_first_line(error)}") from error
        return cls(**held)


def architecture(options: MaceOptions, numbers: Sequence[int], neighbours: float, scale: float) -> Plain:
    """The architecture that the options describe; it reproduces the energies of isolated atoms exactly.

    It is `--model MACE` of `mace_run_train`: the first interaction has no self-connection and there is no shift, so
    that the network adds nothing to the energy of an atom without neighbours.
    """
    irreps = (o3.Irreps.spherical_harmonics(options.max_L) * options.num_channels).sort().irreps.simplify()
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
        "avg_num_neighbors": neighbours,
        "atomic_numbers": [int(number) for number in numbers],
        "correlation": options.correlation,
        "gate": "silu",
        "use_reduced_cg": False,
        "atomic_inter_scale": scale,
        "atomic_inter_shift": 0.0,
    }


def build(architecture: Plain, dtype: str) -> Any:
    """A new network with random weights from torch's global generator, and no atomic energies."""
    named = {
        "interaction_cls": modules.interaction_classes,
        "interaction_cls_first": modules.interaction_classes,
        "readout_cls": modules.readout_classes,
        "gate": modules.gate_dict,
    }
    arguments = dict(architecture)
    for key, known in named.items():
        if key in arguments:
            arguments[key] = known[arguments[key]]
    for key in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        if arguments.get(key) is not None:
            arguments[key] = o3.Irreps(arguments[key])
    count = len(architecture["atomic_numbers"])
    with precision(dtype), quiet():
        return modules.ScaleShiftMACE(num_elements=count, atomic_energies=np.zeros(count), **arguments)


def export(model: Path, target: Path) -> None:
    """Write the pickled module that `mace.calculators.MACECalculator` reads."""
    held = Model.open(model)
    network = held.network()
    network.atomic_energies_fn.atomic_energies = torch.tensor(held.energies, dtype=DTYPES[held.dtype])
    content = io.BytesIO()
    with quiet():
        torch.save(network, content)
    write_atomically(target, content.getvalue())


@lru_cache(maxsize=4)
def _skeleton(architecture: bytes, dtype: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        return build(json.loads(architecture), dtype)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
