"""OpenMM itself: the only file that imports it.

The system has one force, a `PythonForce` that evaluates the walker's energy surface. OpenMM knows no box: the surface
handles periodicity. So cells of any shape and orientation stay as the user gave them, and positions are never wrapped.

OpenMM computes only the integration, on the Reference platform in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import openmm
from ase import Atoms, units

from psiflow_core.constraints import fixed_atoms
from psiflow_core.structures import Array
from psiflow_openmm_sampler._langevin import LangevinMiddle
from psiflow_openmm_sampler._surface import EnergySurface
from psiflow_openmm_sampler.options import OpenMMOptions

KJ_PER_MOL = units.kJ / units.mol  # [eV]
NM = units.nm  # [Å]
PS = 1000 * units.fs  # [ASE's unit of time]

version: str = openmm.version.version


class Engine:
    """One walker in OpenMM; arguments and results are in ASE's units."""

    def __init__(self, options: OpenMMOptions, structure: Atoms, surface: EnergySurface, seed: int) -> None:
        """
        Args:
            options: the sampler's.
            structure: gives masses and fixed atoms.
            surface: energy and forces.
            seed: for the thermostat's random numbers.
        """
        self._force = _Force(surface)
        masses, fixed = structure.get_masses(), fixed_atoms(structure)
        self._langevin = _langevin(options, masses, seed)
        self._integrator = self._langevin.integrator if self._langevin else _deterministic(options)
        at_rest = options.thermostat == "nose-hoover" and len(structure) > 1 and not fixed.any()
        system = _system(np.where(fixed, 0.0, masses), self._force, at_rest)
        self._context = openmm.Context(system, self._integrator, openmm.Platform.getPlatformByName("Reference"))

    def step(self, steps: int) -> None:
        """Take time steps. Errors of the surface are raised unchanged."""
        mover = self._langevin or self._integrator
        self._run(lambda: mover.step(steps))

    def minimise(self, steps: int, reached: Callable[[int, Array], bool]) -> None:
        """Minimise the energy by L-BFGS.

        Args:
            steps: largest number of iterations.
            reached: called with the iteration, from 1, and the positions [Å]; True ends the minimisation.
        """
        reporter = _Reporter(reached)
        # OpenMM's tolerance, a root mean square, is never reached: the reporter decides.
        self._run(lambda: openmm.LocalEnergyMinimizer.minimize(self._context, 1e-9, steps, reporter))
        if reporter.error is not None:
            raise reporter.error

    def positions(self) -> Array:
        """Shape (atoms, 3). [Å]"""
        return _plain(self._context.getState(positions=True).getPositions(asNumpy=True)) * NM

    def velocities(self) -> Array:
        """The integrator's velocities, half a step behind the positions, shape (atoms, 3). [ASE's units]"""
        return _plain(self._context.getState(velocities=True).getVelocities(asNumpy=True)) * (NM / PS)

    def place(self, positions: Array) -> None:
        """Move the atoms to these positions, shape (atoms, 3). [Å]"""
        self._context.setPositions(positions / NM)

    def set_velocities(self, velocities: Array) -> None:
        """Set the velocities that `velocities` returns."""
        self._context.setVelocities(velocities * (PS / NM))

    def state(self) -> tuple[bytes, dict[str, Any] | None]:
        """Everything that exact continuation needs: OpenMM's checkpoint, and Langevin's random stream."""
        return bytes(self._context.createCheckpoint()), self._langevin.state() if self._langevin else None

    def restore(self, checkpoint: bytes, noise: dict[str, Any] | None) -> None:
        """Continue from the result of `state`, in the same system."""
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
    """The function that OpenMM calls. It does not refer to the context: a cycle through C++ would never be freed."""

    def __init__(self, surface: EnergySurface) -> None:
        self._surface = surface
        self.error: BaseException | None = None
        """The surface's error: OpenMM would turn it into text."""

    def __call__(self, state: Any) -> tuple[float, Array]:
        try:
            point = self._surface.at(_plain(state.getPositions(asNumpy=True)) * NM)
        except BaseException as error:
            self.error = error
            raise
        return point.energy / KJ_PER_MOL, point.forces * (NM / KJ_PER_MOL)

    def __reduce__(self) -> NoReturn:
        """OpenMM would keep a copy of it, with the whole network, for each segment of a walker."""
        raise TypeError("a force that belongs to a running integration is not pickled")


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
    """The positions that OpenMM returns after `Engine.place`: converting units may change the last bit. [Å]"""
    return np.asarray(positions / NM * NM)


def _system(masses: Array, force: _Force, at_rest: bool) -> Any:
    """The system that OpenMM moves. Particles without mass stay in place."""
    system = openmm.System()
    for mass in masses:
        system.addParticle(float(mass))
    system.addForce(openmm.PythonForce(force, {}))
    if at_rest:
        # Nosé-Hoover conserves the momentum; OpenMM counts three degrees of freedom less if it is removed.
        system.addForce(openmm.CMMotionRemover(1))
    return system


def _langevin(options: OpenMMOptions, masses: Array, seed: int) -> LangevinMiddle | None:
    if not options.is_langevin or options.temperature is None:
        return None
    return LangevinMiddle(options.temperature, options.friction, options.timestep / 1000, masses, seed)


def _deterministic(options: OpenMMOptions) -> Any:
    timestep = options.timestep / 1000  # [ps]
    if options.target_temperature() is None:
        return openmm.VerletIntegrator(timestep)
    return openmm.NoseHooverIntegrator(options.temperature, options.friction, timestep)


def _plain(quantity: Any) -> Array:
    """The bare numbers, in OpenMM's units."""
    return np.asarray(quantity._value, float)
