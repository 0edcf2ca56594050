"""Forces are the gradient of the energy, and have the symmetries of space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.structures import Label

STEP = 1e-3
"""[Å]; the third derivative of a bond's energy makes an error of 0.01 to 0.05 meV/Å with it"""

LEVELS = [
    pytest.param("H2O", 1, {"method": "hf"}, id="RHF"),
    pytest.param("H2O", 1, {}, id="PBE"),
    pytest.param("H2O", 1, {"density_fitting": True}, id="PBE-fitted"),
    pytest.param("H2O", 1, {"functional": "b3lyp", "dispersion": "d3bj", "density_fitting": True}, id="B3LYP-D3"),
    pytest.param("H2O", 1, {"method": "hf", "dispersion": "d4"}, id="RHF-D4"),
    pytest.param("H2O", 1, {"method": "mp2"}, id="MP2"),
    pytest.param("H2O", 1, {"method": "mp2", "frozen_core": False}, id="MP2-all-electrons"),
    pytest.param("NH2", 2, {"method": "mp2"}, id="UMP2"),
    pytest.param("NH2", 2, {"grid_level": 1}, id="UPBE"),
    pytest.param("NH2", 2, {"functional": "pbe0", "density_fitting": True, "grid_level": 1}, id="UPBE0-fitted"),
    pytest.param("H2O", 1, {"functional": "r2scan"}, id="r2SCAN"),
    pytest.param("H2O", 1, {"functional": "cam-b3lyp"}, id="CAM-B3LYP"),
    pytest.param("H2", 1, {"functional": "wb97m-v", "grid_level": 1}, id="wB97M-V"),
]


@pytest.mark.parametrize(("name", "spin", "options"), LEVELS)
def test_forces_are_the_gradient_of_the_energy(name, spin, options, distorted, label) -> None:
    # Without the response of the grid PBE is 0.14 meV/Å off (per component) at this grid level.
    assert abs(mismatch(distorted(name, spin), label, **options)) < 5e-5


def test_screened_hybrids_miss_the_gradient_by_little(distorted, label) -> None:
    """A finer grid does not help."""
    assert 5e-5 < abs(mismatch(distorted("H2O"), label, functional="hse06")) < 5e-4


def mismatch(atoms: Atoms, label: Callable[..., Label], **options: Any) -> float:
    """Force along a random direction, less the downward slope of the energy. [eV/Å]"""
    direction = np.random.default_rng(0).normal(size=(len(atoms), 3))
    direction /= np.linalg.norm(direction)
    ahead, behind = atoms.copy(), atoms.copy()
    ahead.positions += STEP * direction
    behind.positions -= STEP * direction
    slope = -(label(ahead, **options).energy - label(behind, **options).energy) / (2 * STEP)
    return float(np.sum(label(atoms, **options).forces * direction) - slope)


@pytest.mark.parametrize("options", [{}, {"density_fitting": True}, {"method": "mp2"}])
def test_no_net_force_or_torque(options, distorted, label) -> None:
    atoms = distorted("H2O")
    forces = label(atoms, **options).forces
    assert np.abs(forces).max() > 0.1
    assert np.abs(forces.sum(axis=0)).max() < 1e-8
    # The grid is fixed in space, so that a torque remains, as small as the energy's change under rotation.
    assert np.abs(np.cross(atoms.positions - atoms.positions.mean(axis=0), forces).sum(axis=0)).max() < 1e-3


@pytest.mark.parametrize(
    ("options", "energy", "force"),
    [
        pytest.param({"method": "hf"}, 1e-6, 1e-5, id="without a grid"),
        pytest.param({"grid_level": 4, "density_fitting": True}, 5e-5, 2e-4, id="with a grid"),
    ],
)
def test_forces_turn_with_the_molecule(options, energy, force, distorted, label) -> None:
    atoms = distorted("H2O")
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3))
    here, there = label(atoms, **options), label(turned, **options)
    back = Atoms("OH2", positions=there.forces)
    back.rotate(-40, (1, 2, 3))
    assert there.energy == pytest.approx(here.energy, abs=energy)
    assert back.positions == pytest.approx(here.forces, abs=force)
