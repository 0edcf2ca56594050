"""What the toy calls its engine: pairs of atoms and their curves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

__version__ = os.environ.get("PSIFLOW_TOY_ENGINE", "1.2.3")

if os.environ.get("PSIFLOW_TOY_BROKEN") == "engine":
    raise ImportError("the toy's engine is broken, as the test wants it")

Array: TypeAlias = NDArray[np.float64]


def design(atoms: Atoms, cutoff: float, powers: Sequence[int]) -> tuple[Array, Array]:
    """What one unit of each weight adds to energy and forces: shapes (weights,) and (atoms, 3, weights).

    The curves are (1 − r/cutoff)^power over pairs.
    """
    first, distance, vector = neighbor_list("idD", atoms, cutoff)
    near = 1 - distance / cutoff
    energy, forces = np.zeros(len(powers)), np.zeros((len(atoms), 3, len(powers)))
    for number, power in enumerate(powers):
        energy[number] = 0.5 * np.sum(near**power)
        slope = -power / cutoff * near ** (power - 1)
        np.add.at(forces[:, :, number], first, (slope / distance)[:, None] * vector)
    return energy, forces
