"""A Monte Carlo barostat.

OpenMM has barostats, too. But (in 8.6) they share one random stream among all threads of a process and leave their
step counter out of checkpoints: walkers would disturb each other and could not be continued exactly. They also require
cells in a reduced form, which is not the user's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import units

from psiflow_core.structures import Array


class Barostat:
    """Trial changes of the cell, in which the atoms keep their fractional coordinates.

    Each move is a step in strain, as likely as its reverse. So it is accepted with the probability
    min(1, exp(-(ΔU + PΔV) / kT) (V'/V)^(N+1)): N comes from the positions, 1 from the measure, dV = V d(ln V). For a
    flexible cell this is the ensemble of Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994), with the measure
    dh V^-2 in the nine components of the cell, which separates volume and shape. An ideal gas has the mean volume
    (N+1)kT/P in all three.
    """

    def __init__(self, shape: str, pressure: float, temperature: float, atoms: int, seed: int) -> None:
        self._shape = shape
        self._pressure = pressure * units.bar
        self._thermal = units.kB * temperature
        self._atoms = atoms
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._largest = 0.01
        """Largest change of ln V, or of a component of the strain."""
        self._trials = 0

    def propose(self, cell: Array) -> Array:
        """A trial cell near this one."""
        if self._shape == "isotropic":
            return np.asarray(cell * np.exp(self._random.uniform(-self._largest, self._largest) / 3))
        if self._shape == "anisotropic":
            stretched = cell.copy()
            stretched[self._random.integers(3)] *= np.exp(self._random.uniform(-self._largest, self._largest))
            return stretched
        return cell @ _exponential(_symmetric(self._random.uniform(-self._largest, self._largest, 6)))

    def accepts(self, work: float, before: Array, after: Array) -> bool:
        """Whether the trial is accepted.

        Args:
            work: the rise of the potential energy. [eV]
            before: the cell before, shape (3, 3). [Å]
            after: the proposed cell, shape (3, 3). [Å]
        """
        old, new = volume(before), volume(after)
        exponent = -(work + self._pressure * (new - old)) / self._thermal + (self._atoms + 1) * np.log(new / old)
        accepted = bool(np.log(self._random.random()) < exponent)
        self._adapt(accepted)
        return accepted

    def state(self) -> dict[str, Any]:
        """Everything that exact continuation needs, as plain data."""
        return {"random": self._random.bit_generator.state, "largest": self._largest, "trials": self._trials}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the result of `state`."""
        self._random.bit_generator.state = state["random"]
        self._largest, self._trials = state["largest"], state["trials"]

    def _adapt(self, accepted: bool) -> None:
        """Aim at an acceptance of one half; the corrections shrink, so that the ensemble becomes exact."""
        self._trials += 1
        gain = min(0.2, 10 / self._trials)
        self._largest = float(min(self._largest * np.exp(gain * (accepted - 0.5)), 0.3))


def volume(cell: Array) -> float:
    """Volume of a cell. [Å³]"""
    return float(abs(np.linalg.det(cell)))


def _symmetric(components: Array) -> Array:
    """A strain from its six components in Voigt's order."""
    xx, yy, zz, yz, xz, xy = components
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _exponential(strain: Array) -> Array:
    """The matrix exponential of a symmetric matrix: its inverse is the exponential of the opposite strain."""
    stretches, axes = np.linalg.eigh(strain)
    return np.asarray((axes * np.exp(stretches)) @ axes.T)
