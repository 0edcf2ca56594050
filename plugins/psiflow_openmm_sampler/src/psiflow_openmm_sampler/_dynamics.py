"""A segment of molecular dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units

from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.constraints import fixed_atoms
from psiflow_core.sampling.momenta import degrees_of_freedom, first_momenta
from psiflow_core.sampling.observer import Observer
from psiflow_core.structures import Array
from psiflow_openmm_sampler import _engine, _state
from psiflow_openmm_sampler._barostat import Barostat
from psiflow_openmm_sampler._surface import EnergySurface
from psiflow_openmm_sampler.options import OpenMMOptions

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def run(options: OpenMMOptions, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
    """Move the walker for one segment, or until the monitor stops it."""
    if not task.steps:
        return Segment(Walker(walker.structure.copy(), walker.state, walker.step), 0)
    dynamics = Dynamics(options, walker, forces, task.seed)
    observer = Observer(walker, task, monitor, degrees_of_freedom(walker.structure, drifts=options.is_langevin))
    while not observer.over:
        step = observer.next()
        dynamics.advance(step - observer.steps)
        observer.see(step, dynamics.structure())
    return observer.segment(*dynamics.end())


class Dynamics:
    """One moving walker: OpenMM moves its atoms, the barostat its cell."""

    def __init__(self, options: OpenMMOptions, walker: Walker, forces: Calculator, seed: int) -> None:
        self._options = options
        self._masses: Array = walker.structure.get_masses()
        self._free = ~fixed_atoms(walker.structure)[:, None]
        self._step = walker.step
        self._surface = EnergySurface(forces, walker.structure)
        for_momenta, for_thermostat, for_barostat = np.random.SeedSequence(seed).generate_state(3)
        self._engine = _engine.Engine(options, walker.structure, self._surface, int(for_thermostat))
        self._barostat = _barostat(options, len(walker.structure), int(for_barostat))
        state = _state.unpack(walker.state, self._owner(walker.structure))
        if state is not None:
            self._restore(state)
        else:
            self._start(walker.structure, int(for_momenta))

    def advance(self, steps: int) -> None:
        """Take time steps, and try a new cell whenever the walker's step is a multiple of `barostat_frequency`."""
        end = self._step + steps
        while self._step < end:
            target = min(end, self._next_trial())
            self._engine.step(target - self._step)
            self._step = target
            if self._barostat is not None and target % self._options.barostat_frequency == 0:
                self._try_cell(self._barostat)

    def structure(self) -> Atoms:
        """The walker's present structure, with energy and forces."""
        return self._surface.structure(self._surface.at(self._engine.positions()), self._momenta())

    def end(self) -> tuple[Atoms, bytes]:
        """The walker's structure, and its state for continuation."""
        structure = self._surface.bare(self._engine.positions(), self._surface.cell, self._momenta())
        barostat = self._barostat.state() if self._barostat is not None else None
        state = _state.State(*self._engine.state(), barostat)
        return structure, _state.pack(state, self._owner(structure))

    def _owner(self, structure: Atoms) -> str:
        return _state.owner(structure, self._options.options(), _engine.version)

    def _restore(self, state: _state.State) -> None:
        self._engine.restore(state.checkpoint, state.noise)
        if self._barostat is not None and state.barostat is not None:
            self._barostat.restore(state.barostat)

    def _start(self, structure: Atoms, seed: int) -> None:
        self._engine.place(structure.positions)
        momenta = first_momenta(structure, self._options.temperature or 0.0, np.random.default_rng(seed))
        self._engine.set_velocities((momenta - self._half_kick()) / self._masses[:, None])

    def _momenta(self) -> Array:
        """Momenta in ASE's units; with `nve`, at the time of the positions.

        With a thermostat they are half a step behind: these have the Maxwell-Boltzmann distribution even at a large
        time step (Zhang et al., J. Phys. Chem. A 123, 6056 (2019)).
        """
        return np.asarray(self._engine.velocities() * self._masses[:, None] + self._half_kick())

    def _half_kick(self) -> Array | float:
        if self._options.ensemble != "nve":
            return 0.0
        forces = self._surface.at(self._engine.positions()).forces * self._free
        return forces * (self._options.timestep * units.fs / 2)

    def _next_trial(self) -> int:
        every = self._options.barostat_frequency
        return self._step + every - self._step % every

    def _try_cell(self, barostat: Barostat) -> None:
        present, cell = self._surface.at(self._engine.positions()), self._surface.cell
        trial = barostat.propose(cell)
        moved = present.positions @ np.linalg.solve(cell, trial)
        work = self._surface.at(_engine.as_kept(moved), trial).energy - present.energy
        if barostat.accepts(work, cell, trial):
            self._engine.place(moved)
            self._surface.cell = trial


def _barostat(options: OpenMMOptions, atoms: int, seed: int) -> Barostat | None:
    if options.pressure is None or options.temperature is None:
        return None
    return Barostat(options.barostat or "isotropic", options.pressure, options.temperature, atoms, seed)
