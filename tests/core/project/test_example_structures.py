"""Structures that come with the examples."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.optimize import BFGS

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_demos_test_structures_are_a_canonical_sample_at_their_temperature() -> None:
    """Their mean energy is that of a nearly harmonic molecule: half kT for each of the 15 vibrations."""
    calculator = pytest.importorskip("tblite.ase").TBLite(method="GFN2-xTB", verbosity=0)
    minimum = ase.io.read(EXAMPLES / "acetaldehyde.xyz")
    minimum.calc = calculator
    BFGS(minimum, logfile=None).run(fmax=0.005)
    lowest, energies = minimum.get_potential_energy(), []
    for atoms in ase.io.read(EXAMPLES / "acetaldehyde_test.xyz", ":"):
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy() - lowest)
    kelvin, vibrations = 800, 3 * len(minimum) - 6
    harmonic = vibrations / 2 * units.kB * kelvin
    spread = np.sqrt(vibrations / 2 / len(energies)) * units.kB * kelvin  # of the mean
    assert abs(np.mean(energies) - harmonic) < 4 * spread
