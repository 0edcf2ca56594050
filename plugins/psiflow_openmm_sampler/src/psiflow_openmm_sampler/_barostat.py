"""A Monte Carlo barostat.

OpenMM has barostats too, but (in 8.6) they share one random stream between all threads of a process and leave
their step counter out of checkpoints, so that walkers would disturb each other and could not be continued
exactly; and they ask for cells in a reduced form that is not the user's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import units

from psiflow_core.structures import Array


class Barostat:
    """Trial changes of the cell, in which the atoms keep their fractional coordinates.

    All moves are steps in strain that are as likely as their reverse, so each is accepted with the
    probability min(1, exp(-(ΔU + PΔV) / kT) (V'/V)^(N+1)): N from the positions, 1 from the measure,
    dV = V d(ln V). For a flexible cell that is the ensemble of Martyna, Tobias and Klein, J. Chem. Phys. 101,
    4177 (1994), dh V^-2 in the nine components of the cell, in which volume and shape are measured apart; an
    ideal gas has the mean volume (N+1)kT/P in all three.
    """

    def __init__(self, shape: str, pressure: float, temperature: float, atoms: int, seed: int) -> None:
        self._shape = shape
        self._pressure = pressure * units.bar
        self._thermal = units.kB * temperature
        self._atoms = atoms
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._largest = 0.01
        """Of the change in ln V, or of a component of the strain."""
        self._trials = 0

    def propose(self, cell: Array) -> Array:
        """Another cell near this one."""
        if self._shape == "isotropic":
            return np.asarray(cell * np.exp(self._random.uniform(-self._largest, self._largest) / 3))
        if self._shape == "anisotropic":
            stretched = cell.copy()
            stretched[self._random.integers(3)] *= np.exp(self._random.uniform(-self._largest, self._largest))
            return stretched
        return cell @ _exponential(_symmetric(self._random.uniform(-self._largest, self._largest, 6)))

    def accepts(self, work: float, before: Array, after: Array) -> bool:
        """Whether the trial is taken.

        Args:
            work: by how much the potential energy rises. [eV]
            before: the cell. [Å]
            after: the cell that was proposed. [Å]
        """
        old, new = volume(before), volume(after)
        exponent = -(work + self._pressure * (new - old)) / self._thermal + (self._atoms + 1) * np.log(new / old)
        accepted = bool(np.log(self._random.random()) < exponent)
        self._adapt(accepted)
        return accepted

    def state(self) -> dict[str, Any]:
        """All that it needs to go on exactly, as plain data."""
        return {"random": self._random.bit_generator.state, "largest": self._largest, "trials": self._trials}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self._random.bit_generator.state = state["random"]
        self._largest, self._trials = state["largest"], state["trials"]

    def _adapt(self, accepted: bool) -> None:
        """Aim at an acceptance of one half, by ever smaller corrections: the ensemble becomes exact."""
        self._trials += 1
        gain = min(0.2, 10 / self._trials)
        self._largest = float(min(self._largest * np.exp(gain * (accepted - 0.5)), 0.3))


def volume(cell: Array) -> float:
    """[Å³]"""
    return float(abs(np.linalg.det(cell)))


def _symmetric(components: Array) -> Array:
    """A strain from its six components in Voigt's order."""
    xx, yy, zz, yz, xz, xy = components
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _exponential(strain: Array) -> Array:
    """The matrix exponential of a symmetric matrix: its inverse is that of the opposite strain."""
    stretches, axes = np.linalg.eigh(strain)
    return np.asarray((axes * np.exp(stretches)) @ axes.T)
