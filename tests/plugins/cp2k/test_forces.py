"""Forces and stress are derivatives of the energy, and have the symmetries of space."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.testing.physics import random_direction, rotated, slope_along


def test_forces_are_the_gradient_of_the_energy(label, water) -> None:
    """Of a molecule in the middle of its box, at any cut-off: the net force that the grid makes is taken off."""
    direction = random_direction(water, 0)
    slope = slope_along(lambda atoms: label(atoms).energy, water, direction, 0.005)
    forces = label(water).forces
    assert -np.vdot(forces, direction) == pytest.approx(slope, abs=2e-4)
    assert forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-12)


def test_a_crystal_that_is_turned_has_turned_forces(label, crystal) -> None:
    turned, rotation = rotated(crystal)
    here, there = label(crystal), label(turned)
    assert there.energy == pytest.approx(here.energy, abs=1e-4)
    assert there.forces == pytest.approx(here.forces @ rotation, abs=1e-3)


def test_kpoints_make_a_supercell(label) -> None:
    """Three k-points in a cell are Γ alone in three cells."""
    cell = Atoms("H2", [[0, 0, 0], [0.3, 0.2, 0.74]], cell=[3.0, 3.6, 3.8], pbc=True)
    one = label(cell, kpoints=(3, 1, 1), dispersion=None)
    three = label(cell.repeat((3, 1, 1)), dispersion=None)
    assert one.energy == pytest.approx(three.energy / 3, abs=2e-3)
    assert one.stress == pytest.approx(three.stress, abs=1e-3)
    assert one.forces == pytest.approx(three.forces[:2], abs=1e-2)
