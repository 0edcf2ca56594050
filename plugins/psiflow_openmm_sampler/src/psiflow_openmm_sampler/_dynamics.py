"""A segment of molecular dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units

from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.structures import Array
from psiflow_openmm_sampler import _engine, _state
from psiflow_openmm_sampler._barostat import Barostat
from psiflow_openmm_sampler._observer import Observer
from psiflow_openmm_sampler._surface import EnergySurface
from psiflow_openmm_sampler.sampler import OpenMM

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def run(sampler: OpenMM, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
    """Move the walker for one segment, or until the monitor stops it."""
    if not task.steps:
        return Segment(Walker(walker.structure.copy(), walker.state, walker.step), 0)
    dynamics = Dynamics(sampler, walker, forces, task.seed)
    observer = Observer(task, monitor, sampler.degrees_of_freedom(len(walker.structure)), walker.step)
    step, reason = 0, None
    while step < task.steps and reason is None:
        target = observer.next(step)
        dynamics.advance(target - step)
        step = target
        reason = observer.see(step, dynamics.structure())
    return Segment(dynamics.walker(), step, reason, frames=observer.frames, averages=observer.averages())


class Dynamics:
    """One walker under way: OpenMM moves its atoms, the barostat its cell."""

    def __init__(self, sampler: OpenMM, walker: Walker, forces: Calculator, seed: int) -> None:
        self._sampler = sampler
        self._masses: Array = walker.structure.get_masses()
        self._step = walker.step
        self._surface = EnergySurface(forces, walker.structure)
        for_momenta, for_thermostat, for_barostat = np.random.SeedSequence(seed).generate_state(3)
        self._engine = _engine.Engine(sampler, self._masses, self._surface, int(for_thermostat))
        self._barostat = _barostat(sampler, len(walker.structure), int(for_barostat))
        state = _state.unpack(walker.state, self._owner(walker.structure))
        if state is not None:
            self._restore(state)
        else:
            self._start(walker.structure, int(for_momenta))

    def advance(self, steps: int) -> None:
        """Take time steps, and try a new cell whenever the walker's step is a multiple of the barostat's."""
        end = self._step + steps
        while self._step < end:
            target = min(end, self._next_trial())
            self._engine.step(target - self._step)
            self._step = target
            if self._barostat is not None and target % self._sampler.barostat_frequency == 0:
                self._try_cell(self._barostat)

    def structure(self) -> Atoms:
        """Where the walker is, with energy and forces."""
        return self._surface.structure(self._surface.at(self._engine.positions()), self._momenta())

    def walker(self) -> Walker:
        """The walker as it is, ready to go on."""
        structure = self._surface.bare(self._engine.positions(), self._surface.cell, self._momenta())
        barostat = self._barostat.state() if self._barostat is not None else None
        state = _state.State(*self._engine.state(), barostat)
        return Walker(structure, _state.pack(state, self._owner(structure)), self._step)

    def _owner(self, structure: Atoms) -> str:
        return _state.owner(structure, self._sampler.options(), _engine.version)

    def _restore(self, state: _state.State) -> None:
        self._engine.restore(state.checkpoint, state.noise)
        if self._barostat is not None and state.barostat is not None:
            self._barostat.restore(state.barostat)

    def _start(self, structure: Atoms, seed: int) -> None:
        self._engine.place(structure.positions)
        momenta = structure.get_momenta()
        if not momenta.any():  # where all are zero, as files may have them, there are none
            momenta = maxwell_boltzmann(self._masses, self._sampler.temperature or 0.0, seed)
        self._engine.set_velocities((momenta - self._half_kick()) / self._masses[:, None])

    def _momenta(self) -> Array:
        """In ASE's units, at the time of the positions with `nve`.

        With a thermostat they are half a step behind: those are the ones that have the Maxwell-Boltzmann
        distribution also at a large time step (Zhang et al., J. Phys. Chem. A 123, 6056 (2019)).
        """
        return np.asarray(self._engine.velocities() * self._masses[:, None] + self._half_kick())

    def _half_kick(self) -> Array | float:
        if self._sampler.ensemble != "nve":
            return 0.0
        return self._surface.at(self._engine.positions()).forces * (self._sampler.timestep * units.fs / 2)

    def _next_trial(self) -> int:
        every = self._sampler.barostat_frequency
        return self._step + every - self._step % every

    def _try_cell(self, barostat: Barostat) -> None:
        present, cell = self._surface.at(self._engine.positions()), self._surface.cell
        trial = barostat.propose(cell)
        moved = present.positions @ np.linalg.solve(cell, trial)
        work = self._surface.at(_engine.as_kept(moved), trial).energy - present.energy
        if barostat.accepts(work, cell, trial):
            self._engine.place(moved)
            self._surface.cell = trial


def maxwell_boltzmann(masses: Array, temperature: float, seed: int) -> Array:
    """Momenta at a temperature [K] with the centre of mass at rest, in ASE's units, shape (atoms, 3)."""
    normal = np.random.default_rng(seed).standard_normal((len(masses), 3))
    momenta = normal * np.sqrt(masses * units.kB * temperature)[:, None]
    if len(masses) > 1:
        momenta -= masses[:, None] / masses.sum() * momenta.sum(axis=0)
    return np.asarray(momenta)


def _barostat(sampler: OpenMM, atoms: int, seed: int) -> Barostat | None:
    if sampler.pressure is None or sampler.temperature is None:
        return None
    return Barostat(sampler.barostat or "isotropic", sampler.pressure, sampler.temperature, atoms, seed)
