"""A segment of energy minimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.constraints import fixed_atoms
from psiflow_core.errors import PsiflowError
from psiflow_core.sampling.observer import Observer
from psiflow_core.structures import Array
from psiflow_openmm_sampler import _state
from psiflow_openmm_sampler._engine import Engine
from psiflow_openmm_sampler._surface import EnergySurface
from psiflow_openmm_sampler.options import OpenMMOptions

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


class NoWayDown(PsiflowError):
    """A new L-BFGS finds no step that lowers the energy, although forces are above the tolerance."""

    reason = "no way down"


def run(options: OpenMMOptions, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
    """Minimise for at most the steps of one segment. The next segment begins with a new L-BFGS.

    L-BFGS may give up where the forces are not exactly the gradient of the energy. The segment then ends early, and
    the next one continues from there.

    Raises:
        NoWayDown: L-BFGS gave up before its first step; another segment would make no progress either.
        StructureError: the walker's state belongs to another sampler.
    """
    _state.check(walker.state)
    descent = _Descent(options, walker, forces, task, monitor)
    if descent.converged():
        descent.stay()
    elif task.steps:
        descent.engine.minimise(task.steps, descent.reached)
        descent.conclude()
    return descent.segment()


class _Descent:
    def __init__(
        self, options: OpenMMOptions, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor
    ) -> None:
        self._tolerance = options.tolerance
        self._begin = walker.structure
        self._free = ~fixed_atoms(walker.structure)
        self._surface = EnergySurface(forces, walker.structure)
        self._observer = Observer(walker, task, monitor)
        self.engine = Engine(options, walker.structure, self._surface, seed=1)
        self.engine.place(walker.structure.positions)
        self._positions = self.engine.positions()

    def converged(self) -> bool:
        """Whether the forces on all free atoms are within the tolerance."""
        return self._largest_force() <= self._tolerance

    def stay(self) -> None:
        """Let the monitor look at a walker that is at a minimum already."""
        self._observer.finished = True
        self._observer.look(self._start())

    def reached(self, step: int, positions: Array) -> bool:
        """Look at the end of an iteration; True if it is the last."""
        self._positions = positions
        return self._observer.see(step, self._present(), finished=self.converged())

    def conclude(self) -> None:
        """Let the monitor see the last structure, whether L-BFGS has converged or given up.

        Raises:
            NoWayDown: the walker has not moved, and the monitor does not stop it.
        """
        observer = self._observer
        if observer.looked == observer.steps:
            return
        observer.look(self._present() if observer.steps else self._start())
        if not observer.steps and observer.stopped is None:
            raise NoWayDown(
                f"L-BFGS cannot lower the energy despite a force of {self._largest_force():.2g} eV/Å; set a "
                f"tolerance above that (it is {self._tolerance:g}), or use a potential with smoother forces"
            )

    def segment(self) -> Segment:
        return self._observer.segment(self._structure(), None)

    def _largest_force(self) -> float:
        """Largest force on a free atom; 0 if there is none. [eV/Å]"""
        forces = self._surface.at(self._positions).forces[self._free]
        return float(np.linalg.norm(forces, axis=1).max(initial=0.0))

    def _present(self) -> Atoms:
        return self._surface.structure(self._surface.at(self._positions))

    def _start(self) -> Atoms:
        """The first structure to the last bit, which OpenMM's units may change."""
        return self._surface.structure(self._surface.at(self._begin.positions))

    def _structure(self) -> Atoms:
        start = self._begin
        if not self._observer.steps:
            return start.copy()
        momenta = start.get_momenta() if start.has("momenta") else None
        return self._surface.bare(self._positions, self._surface.cell, momenta)
