"""Periodic images and strains."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from ase import Atoms

from psiflow_core.structures import Array

VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
"""Rows and columns of (xx, yy, zz, yz, xz, xy)."""


def nearest(vectors: Array, structure: Atoms) -> Array:
    """The shortest of all periodic images of each vector, shape (vectors, 3). [Å]"""
    if not structure.pbc.any():
        return vectors
    cell, inverse, images = _lattice(np.asarray(structure.cell).tobytes(), tuple(structure.pbc.tolist()))
    turned = np.round(vectors @ inverse) * structure.pbc
    around = (vectors - turned @ cell)[:, None] + images
    shortest = np.argmin((around**2).sum(axis=2), axis=1)
    return np.asarray(around[np.arange(len(vectors)), shortest])


def strained(structure: Atoms, strain: Array) -> Atoms:
    """A copy under a strain ε: positions and cell vectors r become r(1 + ε)."""
    deformation = np.eye(3) + strain
    moved = placed(structure, structure.positions @ deformation)
    moved.set_cell(np.asarray(structure.cell) @ deformation)
    return moved


@lru_cache(maxsize=64)
def _lattice(cell: bytes, pbc: tuple[bool, ...]) -> tuple[Array, Array, Array]:
    """The reduced cell, in which the shortest image is a neighbour of the nearest; its inverse; the neighbours."""
    from ase.geometry import complete_cell, minkowski_reduce

    periodic = np.frombuffer(cell).reshape(3, 3) * np.array(pbc)[:, None]
    reduced = minkowski_reduce(complete_cell(periodic), pbc)[0]
    steps = np.array(list(product(*[(0, -1, 1) if turns else (0,) for turns in pbc])), float)
    return np.asarray(reduced), np.linalg.inv(reduced), steps @ reduced


def placed(structure: Atoms, positions: Array) -> Atoms:
    """A copy with the atoms elsewhere."""
    moved = structure.copy()
    moved.positions = positions
    return moved


def symmetric(matrix: Array) -> Array:
    """The symmetric part."""
    return (matrix + matrix.T) / 2
