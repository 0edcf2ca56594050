"""Pairs of atoms, and what a function of their distances adds to energy, forces and virial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Every pair nearer than a cut-off, once from each side, periodic images included."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance: Array
    """Shape (pairs,). [Å]"""
    vector: Array
    """From the first atom to the second, shape (pairs, 3). [Å]"""

    @classmethod
    def of(cls, atoms: Atoms, cutoff: float) -> Pairs:
        from ase.neighborlist import neighbor_list  # it loads scipy

        return cls(*neighbor_list("ijdD", atoms, cutoff))

    def forces(self, slope: Array, atoms: int) -> Array:
        """Minus the gradient of E = ½ Σ f(r), shape (atoms, 3), from f'(r), shape (pairs,)."""
        along = slope[:, None] * self.vector / self.distance[:, None]
        total = np.zeros((atoms, 3))
        np.add.at(total, self.first, along)  # the half of each pair is seen from both of its sides
        return total

    def virial(self, slope: Array) -> Array:
        """dE/dε in Voigt order (xx, yy, zz, yz, xz, xy), shape (6,), from f'(r), shape (pairs,)."""
        along = slope[:, None] * self.vector / self.distance[:, None]
        strain: Array = 0.5 * along.T @ self.vector
        return strain[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def switch(distance: Array, cutoff: float) -> tuple[Array, Array]:
    """A cosine from 1 at zero distance to 0 at the cut-off, and its slope."""
    phase = np.pi * np.minimum(distance / cutoff, 1.0)
    return 0.5 * (1 + np.cos(phase)), -0.5 * np.pi / cutoff * np.sin(phase)
