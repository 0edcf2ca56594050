"""ASE calculators that stand for codes which are told charge and spin in different ways.

The energy is 10 times the charge plus the number of unpaired electrons. [eV]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class Toy(Calculator):  # type: ignore[misc]
    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]
    default_parameters: ClassVar[dict[str, Any]] = {"xc": "PBE"}

    def heard(self, atoms: Atoms) -> tuple[float, float]:
        """Charge and unpaired electrons."""
        return 0.0, 0.0

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        charge, unpaired = self.heard(self.atoms)
        self.results = {"energy": 10.0 * charge + unpaired, "forces": np.zeros((len(self.atoms), 3))}


class Moments(Toy):
    """As NWChem: whole unpaired electrons, cut off, by initial moments."""

    def heard(self, atoms: Atoms) -> tuple[float, float]:
        return 0.0, int(atoms.get_initial_magnetic_moments().sum())


class Arrays(Toy):
    """As xtb-python: initial charges and moments."""

    def heard(self, atoms: Atoms) -> tuple[float, float]:
        return atoms.get_initial_charges().sum(), atoms.get_initial_magnetic_moments().sum()


class Info(Toy):
    """As machine-learned potentials for molecules: ``info``, with 2S+1 for the spin."""

    def heard(self, atoms: Atoms) -> tuple[float, float]:
        return atoms.info.get("charge", 0), atoms.info.get("spin", 1) - 1


class Parameters(Toy):
    """As ORCA and Gaussian: `charge` and `mult`. It writes into what it is given, as some do."""

    default_parameters: ClassVar[dict[str, Any]] = {"charge": 0, "mult": 1, "block": {}}

    def heard(self, atoms: Atoms) -> tuple[float, float]:
        self.parameters["block"].setdefault("mult", self.parameters["mult"])
        return self.parameters["charge"], self.parameters["block"]["mult"] - 1


class Smeared(Toy):
    """As VASP with smeared occupations: two energies, and forces of the free one."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces"]

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        self.results |= {"energy": -10.0, "free_energy": -10.5}


class Dftb(Toy):
    """Named as ASE's DFTB+, which is not told the spin."""
