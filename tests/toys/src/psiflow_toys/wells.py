"""A dimer with two wells, its free energy, and a textbook's metadynamics on it."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

import psiflow_core as psiflow
from psiflow_core.structures import Array

BARRIER, MIDDLE, WIDTH = 0.2, 2.0, 0.5  # [eV, Å, Å]
PLACES = np.linspace(1.2, 2.8, 161)
"""Where free energies are looked at. [Å]"""


def energy(length: Array | float) -> Array:
    """B (((r − m)/w)² − 1)²: wells at 1.5 and 2.5 Å. [eV]"""
    return np.asarray(BARRIER * (((length - MIDDLE) / WIDTH) ** 2 - 1) ** 2)


def slope(length: Array | float) -> Array:
    place = (length - MIDDLE) / WIDTH
    return np.asarray(4 * BARRIER * (place**2 - 1) * place / WIDTH)


def surface(atoms: Atoms) -> tuple[float, Array]:
    """Energy and forces of a dimer."""
    bond = atoms.positions[1] - atoms.positions[0]
    length = np.linalg.norm(bond)
    push = slope(length) * bond / length
    return float(energy(length)), np.array([push, -push])


def barriers(free: Array) -> Array:
    """From the left and from the right well to the top between them, at `PLACES`; shape (..., places) to (..., 2)."""
    exact = energy(PLACES) - 2 * units.kB * 300.0 * np.log(PLACES)
    top = np.argmax(np.where(abs(PLACES - MIDDLE) < 0.2, exact, -np.inf))
    bottoms = [np.argmin(np.where(side, exact, np.inf)) for side in (PLACES < MIDDLE, PLACES > MIDDLE)]
    return np.asarray(free)[..., [top]] - np.asarray(free)[..., bottoms]


def metadynamics(
    hills: psiflow.Metadynamics, atoms: Atoms, timestep: float, friction: float, steps: int, walkers: int
) -> Array:
    """Free energies that independent walkers come to at 300 K, shape (walkers, places). [eV]

    Well-tempered hills (Barducci, Bussi and Parrinello, Phys. Rev. Lett. 100, 020603 (2008)) on a grid, and Langevin's
    middle scheme (Zhang et al., J. Phys. Chem. A 123, 6056 (2019)) for the distance vector with the reduced mass.

    Args:
        timestep: [fs]
        friction: [1/ps]
    """
    assert hills.bias_factor is not None
    random, kt, (sigma,), factor = np.random.default_rng(0), units.kB * 300.0, hills.sigma, hills.bias_factor
    mass, step = 1 / (1 / atoms.get_masses()).sum(), timestep * units.fs
    keep = np.exp(-friction / (1000 * units.fs) * step)
    grid, every = np.linspace(0.5, 4.5, 401), np.arange(walkers)
    bias, tilt = np.zeros((2, walkers, len(grid)))
    apart = np.tile(atoms.positions[1] - atoms.positions[0], (walkers, 1))
    speed = random.normal(size=(walkers, 3)) * np.sqrt(kt / mass)

    def on_the_grid(values: Array, length: Array) -> Array:
        place = (length - grid[0]) / (grid[1] - grid[0])
        left = place.astype(int)
        return values[every, left] * (left + 1 - place) + values[every, left + 1] * (place - left)

    for now in range(1, steps + 1):
        length = np.linalg.norm(apart, axis=1)
        speed -= step / mass * ((slope(length) + on_the_grid(tilt, length)) / length)[:, None] * apart
        apart = apart + step / 2 * speed
        speed = keep * speed + random.normal(size=speed.shape) * np.sqrt((1 - keep**2) * kt / mass)
        apart = apart + step / 2 * speed
        if now % hills.every == 0:
            length = np.linalg.norm(apart, axis=1)
            height = hills.height * np.exp(-on_the_grid(bias, length) / (kt * (factor - 1)))
            away = (grid - length[:, None]) / sigma
            hill = height[:, None] * np.exp(-(away**2) / 2)
            bias += hill
            tilt -= hill * away / sigma
    return -factor / (factor - 1) * np.array([np.interp(PLACES, grid, one) for one in bias])
