"""Finite differences and motions that physics says something about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms

from psiflow_core.structures import Array

Energy = Callable[[Atoms], float]


def random_direction(atoms: Atoms, seed: int) -> Array:
    """A displacement of all atoms, of length 1, shape (atoms, 3)."""
    direction = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    return np.asarray(direction / np.linalg.norm(direction))


def slope_along(energy: Energy, atoms: Atoms, direction: Array, step: float) -> float:
    """dE/dx for atoms that move along a direction, by central differences. [eV/Å]"""

    def moved(distance: float) -> Atoms:
        copy = atoms.copy()
        copy.positions = atoms.positions + distance * direction
        return copy

    return (energy(moved(step)) - energy(moved(-step))) / (2 * step)


def slope_under_strain(energy: Energy, atoms: Atoms, strain: Array, step: float) -> float:
    """dE/dη for a cell that deforms as 1 + η·strain (3, 3), by central differences. [eV]"""

    def deformed(amount: float) -> Atoms:
        copy = atoms.copy()
        copy.set_cell(atoms.cell @ (np.eye(3) + amount * strain), scale_atoms=True)
        return copy

    return (energy(deformed(step)) - energy(deformed(-step))) / (2 * step)


def random_strain(seed: int) -> Array:
    """A symmetric strain of norm 1, shape (3, 3)."""
    strain = np.random.default_rng(seed).normal(size=(3, 3))
    strain = strain + strain.T
    return np.asarray(strain / np.linalg.norm(strain))


def full_stress(voigt: Array) -> Array:
    """The stress as a matrix, shape (3, 3)."""
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def rotated(atoms: Atoms) -> tuple[Atoms, Array]:
    """The structure, cell included, turned about a skew axis, and R that turns row vectors: v @ R."""
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    axes = Atoms("H3", np.eye(3))
    axes.rotate(37.0, (1, 2, 3))
    return turned, np.asarray(axes.positions)
