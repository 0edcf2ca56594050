"""A segment of energy minimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.structures import Array
from psiflow_openmm_sampler._engine import Engine
from psiflow_openmm_sampler._observer import Observer
from psiflow_openmm_sampler._surface import EnergySurface
from psiflow_openmm_sampler.sampler import OpenMM

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def run(sampler: OpenMM, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
    """Go down for at most the steps of one segment. A next segment begins with a fresh L-BFGS."""
    descent = _Descent(sampler, walker, forces, task, monitor)
    if not descent.converged():
        descent.engine.minimise(task.steps, descent.reached)
    return descent.segment()


class _Descent:
    def __init__(
        self, sampler: OpenMM, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor
    ) -> None:
        self._tolerance = sampler.tolerance
        self._walker = walker
        self._task = task
        self._surface = EnergySurface(forces, walker.structure)
        self._observer = Observer(task, monitor, degrees_of_freedom=0)
        self._step = 0
        self._reason: str | None = None
        self.engine = Engine(sampler, walker.structure.get_masses(), self._surface, seed=1)
        self.engine.place(walker.structure.positions)
        self._positions = self.engine.positions()

    def converged(self) -> bool:
        """Whether no atom's force is above the tolerance where the walker is."""
        forces = self._surface.at(self._positions).forces
        return bool(np.linalg.norm(forces, axis=1).max() <= self._tolerance)

    def reached(self, step: int, positions: Array) -> bool:
        """Look at the end of an iteration; True if it is the last."""
        self._step, self._positions = step, positions
        last = self.converged() or step >= self._task.steps
        atoms = self._surface.structure(self._surface.at(positions))
        self._reason = self._observer.see(step, atoms, last)
        return last or self._reason is not None

    def segment(self) -> Segment:
        momenta = self._walker.structure.get_momenta() if self._walker.structure.has("momenta") else None
        structure = self._surface.bare(self._positions, self._surface.cell, momenta)
        return Segment(
            Walker(structure, None, self._walker.step + self._step),
            self._step,
            self._reason,
            finished=self.converged(),
            frames=self._observer.frames,
            averages=self._observer.averages(),
        )
