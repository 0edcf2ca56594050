"""Langevin dynamics whose random numbers belong to the walker.

OpenMM draws on its Reference platform from one stream for the whole process, so that walkers in threads would
disturb each other, and its CPU platform, which has a stream for each context, wakes a thread pool at every step:
for a force that Python computes, ten times the cost. So OpenMM integrates, and the noise is handed to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
from ase import units

from psiflow_core.structures import Array

NM_PER_PS = units.nm / (1000 * units.fs)  # OpenMM's velocity in [ASE's units]


class LangevinMiddle:
    """The LFMiddle discretisation, as OpenMM's own `LangevinMiddleIntegrator` has it.

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
        self.integrator.setRandomNumberSeed(1)  # never drawn from; 0 would put chance into checkpoints
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
        """Of the noise, as plain data."""
        return dict(self._random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self._random.bit_generator.state = state
