"""Langevin dynamics in which each walker has its own random numbers.

OpenMM's Reference platform has one random stream for the whole process: walkers in threads would disturb each other.
Its CPU platform has a stream for each context, but wakes a thread pool at every step, which costs ten times as much
with a force computed in Python. So OpenMM integrates, and this module supplies the noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
from ase import units

from psiflow_core.structures import Array

NM_PER_PS = units.nm / (1000 * units.fs)  # OpenMM's velocity in [ASE's units]


class LangevinMiddle:
    """The LFMiddle discretisation, as in OpenMM's `LangevinMiddleIntegrator`.

    Source: Zhang et al., J. Phys. Chem. A 123, 6056 (2019).
    """

    def __init__(self, temperature: float, friction: float, timestep: float, masses: Array, seed: int) -> None:
        """
        Args:
            temperature: [K]
            friction: [1/ps]
            timestep: [ps]
            masses: shape (atoms,). [amu]
            seed: of the noise.
        """
        kept = np.exp(-friction * timestep)
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._width: Array = np.sqrt((1 - kept**2) * units.kB * temperature / masses)[:, None] / NM_PER_PS
        self.integrator = openmm.CustomIntegrator(timestep)
        self.integrator.setRandomNumberSeed(1)  # never drawn from; with 0, checkpoints would hold a random seed
        self.integrator.addGlobalVariable("kept", kept)
        self._kick = self.integrator.addPerDofVariable("kick", 0.0)
        self.integrator.addComputePerDof("v", "v + dt*f/m")
        self.integrator.addComputePerDof("x", "x + dt*v/2")
        self.integrator.addComputePerDof("v", "kept*v + kick")
        self.integrator.addComputePerDof("x", "x + dt*v/2")

    def step(self, steps: int) -> None:
        """Take time steps."""
        shape = (len(self._width), 3)
        for _ in range(steps):
            self.integrator.setPerDofVariable(self._kick, self._random.standard_normal(shape) * self._width)
            self.integrator.step(1)

    def state(self) -> dict[str, Any]:
        """The state of the noise, as plain data."""
        return dict(self._random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the result of `state`."""
        self._random.bit_generator.state = state
