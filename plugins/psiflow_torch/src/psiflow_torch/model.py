"""A model: the plan of its network as plain data, its weights, and the energies of isolated atoms."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from psiflow_core.errors import ModelCorrupt
from psiflow_core.files import write_atomically
from psiflow_core.structures import Array, Plain
from psiflow_torch.engine import Tensors, torch

FORMAT = "psiflow-torch 1"
"""A mark in every model file; the number changes with the format."""


@dataclass(frozen=True)
class Model:
    """A trained network without torch's modules: the contents of a model file."""

    potential: str
    """The name of the potential."""
    plan: Plain
    """The arguments of the network's builder."""
    atomic_energies: dict[str, float]
    """By chemical symbol, in the order of the network's species: those of isolated atoms, or, after a start from a
    foundation model, those fitted to the labels. [eV]"""
    cutoff: float
    """The largest distance between neighbours. [Å]"""
    dtype: str
    shape: Plain
    """The options that decided the plan."""
    weights: Tensors
    """The network's state dict."""

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of all known species, in the network's order."""
        return list(self.atomic_energies)

    @property
    def energies(self) -> Array:
        """Energies of the isolated atoms in the network's order, shape (species,). [eV]"""
        return np.array(list(self.atomic_energies.values()))

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


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
