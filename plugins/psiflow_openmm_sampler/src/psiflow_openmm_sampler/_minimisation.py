"""A segment of energy minimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.errors import PsiflowError
from psiflow_core.structures import Array
from psiflow_openmm_sampler import _state
from psiflow_openmm_sampler._engine import Engine
from psiflow_openmm_sampler._observer import Observer
from psiflow_openmm_sampler._surface import EnergySurface
from psiflow_openmm_sampler.sampler import OpenMM

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


class NoWayDown(PsiflowError):
    """A fresh L-BFGS finds no step that lowers the energy, though forces are above the tolerance."""

    reason = "no way down"


def run(sampler: OpenMM, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
    """Go down for at most the steps of one segment. A next segment begins with a fresh L-BFGS.

    L-BFGS may give up by itself, where the forces are not quite the gradient of the energy: the segment then
    ends early, and the next one goes on from there.

    Raises:
        NoWayDown: L-BFGS gave up before its first step, so that a next segment would come no further either.
        StructureError: the walker's state is another sampler's.
    """
    _state.check(walker.state)
    descent = _Descent(sampler, walker, forces, task, monitor)
    if descent.converged():
        descent.stay()
    elif task.steps:
        descent.engine.minimise(task.steps, descent.reached)
        descent.conclude()
    return descent.segment()


class _Descent:
    def __init__(
        self, sampler: OpenMM, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor
    ) -> None:
        self._tolerance = sampler.tolerance
        self._walker = walker
        self._task = task
        self._surface = EnergySurface(forces, walker.structure)
        self._observer = Observer(task, monitor, degrees_of_freedom=0, start=walker.step)
        self._step = 0
        self._reason: str | None = None
        self.engine = Engine(sampler, walker.structure.get_masses(), self._surface, seed=1)
        self.engine.place(walker.structure.positions)
        self._positions = self.engine.positions()

    def converged(self) -> bool:
        """Whether no atom's force is above the tolerance where the walker is."""
        return self._largest_force() <= self._tolerance

    def stay(self) -> None:
        """Let the monitor look at a walker that has nowhere to go."""
        self._reason = self._observer.ask(0, self._start())

    def reached(self, step: int, positions: Array) -> bool:
        """Look at the end of an iteration; True if it is the last."""
        self._step, self._positions = step, positions
        last = self.converged() or step >= self._task.steps
        self._reason = self._observer.see(step, self._present(), last)
        return last or self._reason is not None

    def conclude(self) -> None:
        """Let the monitor see the end, whether L-BFGS came to it or gave up.

        Raises:
            NoWayDown: it has not moved, and the monitor does not mind where the walker is.
        """
        if self._observer.asked == self._step:
            return
        self._reason = self._observer.ask(self._step, self._present() if self._step else self._start())
        if self._step == 0 and self._reason is None:
            raise NoWayDown(
                f"L-BFGS cannot lower the energy though there is a force of {self._largest_force():.2g} eV/Å; set a "
                f"tolerance above that (it is {self._tolerance:g}), or use a potential whose forces are smoother"
            )

    def segment(self) -> Segment:
        return Segment(
            Walker(self._structure(), None, self._walker.step + self._step),
            self._step,
            self._reason,
            finished=self.converged(),
            frames=self._observer.frames,
            averages=self._observer.averages(),
        )

    def _largest_force(self) -> float:
        """[eV/Å]"""
        return float(np.linalg.norm(self._surface.at(self._positions).forces, axis=1).max())

    def _present(self) -> Atoms:
        return self._surface.structure(self._surface.at(self._positions))

    def _start(self) -> Atoms:
        """To the last bit, which OpenMM's units cost."""
        return self._surface.structure(self._surface.at(self._walker.structure.positions))

    def _structure(self) -> Atoms:
        start = self._walker.structure
        if not self._step:
            return start.copy()
        momenta = start.get_momenta() if start.has("momenta") else None
        return self._surface.bare(self._positions, self._surface.cell, momenta)
