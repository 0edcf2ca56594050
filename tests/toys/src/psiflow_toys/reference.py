"""Morse pairs, as a reference."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from pydantic import Field, NonNegativeFloat, PositiveFloat

from psiflow_core.components import LabelTask, Reference
from psiflow_core.errors import ReferenceFailed
from psiflow_core.structures import Label, digest
from psiflow_toys.pairs import Pairs, switch


class ToyReference(Reference):
    """E = −ΣZ + Σ D (1 − e^(−a(r−r₀)))² − D over pairs, r₀ the sum of covalent radii, smoothly cut off."""

    name: ClassVar[str] = "toy"

    depth: PositiveFloat = 1.0
    """Depth D of the well. [eV]"""
    width: PositiveFloat = 1.5
    """Inverse width a of the well. [1/Å]"""
    cutoff: PositiveFloat = 5.0
    """Pairs farther apart do not count. [Å]"""
    delay: NonNegativeFloat = 0.0
    """Time that a label takes. [s]"""
    fail_fraction: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the structures that fail, chosen by their content. [1]"""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        time.sleep(self.delay)
        if int(digest(structure)[:8], 16) < self.fail_fraction * 16**8:
            raise ReferenceFailed("this structure is one of those that the toy fails on", "unconverged")
        with np.errstate(all="ignore"):  # what is not a number is told below
            label = self._morse(structure)
        if not np.isfinite(label.forces).all():
            raise ReferenceFailed("two atoms are at the same place; move them apart", "bad input")
        return label

    def _morse(self, atoms: Atoms) -> Label:
        pairs = Pairs.of(atoms, self.cutoff)
        radii = covalent_radii[atoms.numbers]
        decay = np.exp(-self.width * (pairs.distance - radii[pairs.first] - radii[pairs.second]))
        well = self.depth * (decay**2 - 2 * decay)
        well_slope = 2 * self.depth * self.width * (decay - decay**2)
        cut, cut_slope = switch(pairs.distance, self.cutoff)
        slope = well_slope * cut + well * cut_slope
        stress = pairs.virial(slope) / atoms.get_volume() if atoms.pbc.all() else None
        energy = 0.5 * float(np.sum(well * cut)) - float(atoms.numbers.sum())
        return Label(energy, pairs.forces(slope, len(atoms)), stress)
