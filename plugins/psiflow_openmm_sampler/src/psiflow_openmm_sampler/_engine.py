"""OpenMM itself: the only file that imports it.

Only one force acts in the system, a `PythonForce` that asks the walker's energy surface. OpenMM knows no box:
the surface takes care of periodicity, so that cells of any shape and orientation stay as the user gave them,
and positions are never wrapped.

The Reference platform is used: all that OpenMM computes is the integration, in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from ase import units

from psiflow_core.structures import Array
from psiflow_openmm_sampler._langevin import LangevinMiddle
from psiflow_openmm_sampler._surface import EnergySurface
from psiflow_openmm_sampler.sampler import OpenMM

KJ_PER_MOL = units.kJ / units.mol  # [eV]
NM = units.nm  # [Å]
PS = 1000 * units.fs  # [ASE's unit of time]

version: str = openmm.version.version


class Engine:
    """One walker in OpenMM, spoken to in ASE's units."""

    def __init__(self, sampler: OpenMM, masses: Array, surface: EnergySurface, seed: int) -> None:
        """
        Args:
            sampler: its options.
            masses: shape (atoms,). [amu]
            surface: energy and forces.
            seed: of the thermostat's random numbers.
        """
        self._force = _Force(surface)
        self._langevin = _langevin(sampler, masses, seed)
        self._integrator = self._langevin.integrator if self._langevin else _deterministic(sampler)
        system = _system(masses, self._force, still=sampler.thermostat == "nose-hoover")
        self._context = openmm.Context(system, self._integrator, openmm.Platform.getPlatformByName("Reference"))

    def step(self, steps: int) -> None:
        """Take time steps. Whatever the surface raises leaves as it came."""
        mover = self._langevin or self._integrator
        self._run(lambda: mover.step(steps))

    def minimise(self, steps: int, reached: Callable[[int, Array], bool]) -> None:
        """Go down by L-BFGS.

        Args:
            steps: the most iterations.
            reached: is given the iteration, from 1, and the positions [Å]; True ends the minimisation.
        """
        reporter = _Reporter(reached)
        # The tolerance on the root mean square is out of reach: the reporter decides.
        self._run(lambda: openmm.LocalEnergyMinimizer.minimize(self._context, 1e-9, steps, reporter))
        if reporter.error is not None:
            raise reporter.error

    def positions(self) -> Array:
        """Shape (atoms, 3). [Å]"""
        return _plain(self._context.getState(positions=True).getPositions(asNumpy=True)) * NM

    def velocities(self) -> Array:
        """As the integrator keeps them, half a step behind the positions, shape (atoms, 3). [ASE's units]"""
        return _plain(self._context.getState(velocities=True).getVelocities(asNumpy=True)) * (NM / PS)

    def place(self, positions: Array) -> None:
        """Move the atoms to these positions. [Å]"""
        self._context.setPositions(positions / NM)

    def set_velocities(self, velocities: Array) -> None:
        """The inverse of `velocities`."""
        self._context.setVelocities(velocities * (PS / NM))

    def state(self) -> tuple[bytes, dict[str, Any] | None]:
        """All that is needed to go on exactly: OpenMM's checkpoint, and Langevin's random stream."""
        return bytes(self._context.createCheckpoint()), self._langevin.state() if self._langevin else None

    def restore(self, checkpoint: bytes, noise: dict[str, Any] | None) -> None:
        """Go on from where `state` was taken, in the same system."""
        self._context.loadCheckpoint(checkpoint)
        if self._langevin and noise is not None:
            self._langevin.restore(noise)

    def _run(self, action: Callable[[], None]) -> None:
        try:
            action()
        except openmm.OpenMMException:
            if self._force.error is not None:
                raise self._force.error from None
            raise


class _Force:
    """What OpenMM calls. It does not know the context: a circle through C++ would never be freed."""

    def __init__(self, surface: EnergySurface) -> None:
        self._surface = surface
        self.error: BaseException | None = None
        """What the surface raised: OpenMM would make text of it."""

    def __call__(self, state: Any) -> tuple[float, Array]:
        try:
            point = self._surface.at(_plain(state.getPositions(asNumpy=True)) * NM)
        except BaseException as error:
            self.error = error
            raise
        return point.energy / KJ_PER_MOL, point.forces * (NM / KJ_PER_MOL)


class _Reporter(openmm.MinimizationReporter):
    def __init__(self, reached: Callable[[int, Array], bool]) -> None:
        super().__init__()
        self._reached = reached
        self.error: BaseException | None = None

    def report(self, iteration: int, x: Any, grad: Any, args: Any) -> bool:
        try:
            return self._reached(iteration + 1, np.array(x, float).reshape(-1, 3) * NM)
        except BaseException as error:  # must not pass through C++
            self.error = error
            return True


def as_kept(positions: Array) -> Array:
    """These positions as they are read back after `Engine.place`: the units cost a last bit. [Å]"""
    return np.asarray(positions / NM * NM)


def _system(masses: Array, force: _Force, still: bool) -> Any:
    system = openmm.System()
    for mass in masses:
        system.addParticle(float(mass))
    system.addForce(openmm.PythonForce(force, {}))
    if still and len(masses) > 1:
        # Nosé-Hoover conserves the momentum; OpenMM counts three degrees of freedom less if it is removed.
        system.addForce(openmm.CMMotionRemover(1))
    return system


def _langevin(sampler: OpenMM, masses: Array, seed: int) -> LangevinMiddle | None:
    temperature = sampler.target_temperature()
    if temperature is None or sampler.thermostat == "nose-hoover":
        return None
    return LangevinMiddle(temperature, sampler.friction, sampler.timestep / 1000, masses, seed)


def _deterministic(sampler: OpenMM) -> Any:
    timestep = sampler.timestep / 1000  # [ps]
    if sampler.target_temperature() is None:
        return openmm.VerletIntegrator(timestep)
    return openmm.NoseHooverIntegrator(sampler.temperature, sampler.friction, timestep)


def _plain(quantity: Any) -> Array:
    """The bare numbers, in OpenMM's units."""
    return np.asarray(quantity._value, float)
