"""A model: its architecture as plain data, and its weights."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psiflow_core.errors import ModelCorrupt
from psiflow_core.files import write_atomically
from psiflow_core.structures import Plain
from psiflow_nequip._engine import BUILDERS, prepared, quiet, torch
from psiflow_nequip._graphs import Tensors
from psiflow_nequip.options import EquivariantOptions

FORMAT = "psiflow-nequip 1"
"""A mark in every model file; the number changes with the format."""


@dataclass(frozen=True)
class Model:
    """A trained network without torch's modules: the contents of a model file."""

    potential: str
    """`"nequip"` or `"allegro"`."""
    architecture: Plain
    """Arguments of the library's model builder, energies of isolated atoms included."""
    dtype: str
    shape: Plain
    """The options that decided the architecture."""
    weights: Tensors
    """The network's state dict."""

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of all known species, in the network's order."""
        return list(self.architecture["type_names"])

    @property
    def cutoff(self) -> float:
        """The largest distance between neighbours. [Å]"""
        return float(self.architecture["r_max"])

    @property
    def energies(self) -> list[float]:
        """Energies of the isolated atoms in the network's order. [eV]"""
        return [self.architecture["per_type_energy_shifts"][symbol] for symbol in self.symbols]

    def network(self) -> Any:
        """A new network with these weights."""
        network = build(self.potential, self.architecture, self.dtype)
        network.load_state_dict(self.weights)
        return network

    def save(self, path: Path) -> None:
        """Write the file completely or not at all; equal models give equal bytes."""
        content = io.BytesIO()  # torch.save would put the file's own name into it
        torch.save({"format": FORMAT, **vars(self)}, content)
        write_atomically(path, content.getvalue())

    @classmethod
    def open(cls, path: Path, potential: str) -> Model:
        """Read a model file; only tensors and plain data are accepted, so that it cannot run code.

        Raises:
            ModelCorrupt: the file is missing or damaged, or it is not a model file of this potential.
        """
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
            if held.pop("format") != FORMAT:
                raise ValueError("it has another format")
            if held["potential"] != potential:
                raise ValueError(f"it is a model of potential '{held['potential']}'")
        except Exception as error:  # torch may raise anything for a foreign file
            raise ModelCorrupt(f"{path} is not a model of potential '{potential}': {_first_line(error)}") from error
        return cls(**held)


def architecture(options: EquivariantOptions, energies: Mapping[str, float], neighbours: float, scale: float) -> Plain:
    """The architecture that the options describe.

    Args:
        energies: of the isolated atoms, by chemical symbol, in the order of the network's species. [eV]
        neighbours: mean number of neighbours of an atom.
        scale: RMS force component. [eV/Å]
    """
    return {
        **options.network(),
        "type_names": list(energies),
        "avg_num_neighbors": neighbours,
        "per_type_energy_scales": scale,
        "per_type_energy_shifts": dict(energies),
    }


def build(potential: str, architecture: Plain, dtype: str, seed: int = 0) -> Any:
    """A new network with random weights from the seed; torch's own generators stay as they are."""
    with prepared(), quiet():
        return BUILDERS[potential](seed=seed, model_dtype=dtype, **architecture)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
