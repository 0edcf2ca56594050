"""One segment of a walker while its sampler goes along it: looks of the monitor, frames, averages."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.structures import Label, with_label


class Observer:
    """Shows a walker to the monitor when it is due, keeps its frames, and averages over the looks.

    The sampler calls `see` after each step, or after those alone that `next` names, until `over`::

        while not observer.over:
            step = observer.next()
            ...  # go there
            observer.see(step, atoms)
        return observer.segment(atoms, state)
    """

    def __init__(self, walker: Walker, task: SamplingTask, monitor: Monitor, degrees: int = 0) -> None:
        """
        Args:
            degrees: how many momenta share the kinetic energy, as `momenta.degrees_of_freedom` counts them; 0 where
                nothing moves in time, so that there is no temperature.
        """
        self._walker = walker
        self._task = task
        self._monitor = monitor
        self._degrees = degrees
        self._measured: list[dict[str, float]] = []
        self._frames: list[Atoms] = []
        self.steps = 0
        """Steps of the segment that were taken."""
        self.stopped: str | None = None
        """The monitor's reason."""
        self.finished = False
        """The trajectory has ended by itself."""
        self.looked: int | None = None
        """The step at which the monitor looked last."""

    @property
    def over(self) -> bool:
        """Whether the segment has ended."""
        return self.stopped is not None or self.finished or self.steps >= self._task.steps

    def next(self) -> int:
        """The next step of the segment at which there is something to see."""
        due = [self._task.steps, _following(self.steps, self._task.check_every)]
        if self._task.stride:
            due.append(_following(self._walker.step + self.steps, self._task.stride) - self._walker.step)
        return min(due)

    def see(self, step: int, structure: Atoms, finished: bool = False) -> bool:
        """Look at the structure after a step of the segment.

        Args:
            structure: with energy and forces in its calculator, if the sampler asked for them.
            finished: whether the trajectory ends here by itself.

        Returns:
            Whether the segment ends here.
        """
        self.steps, self.finished = step, bool(finished)  # an optimiser's may be numpy's, which no JSON takes
        stride = self._task.stride  # counted from the walker's start, so that segments do not show
        if stride and (self._walker.step + step) % stride == 0:
            self._frames.append(_frame(structure))
        if step % self._task.check_every == 0 or self.over:
            self.look(structure)
        return self.over

    def look(self, structure: Atoms) -> None:
        """Let the monitor look at the structure, where the walker is."""
        self.looked = self.steps
        self._measured.append(self._measure(structure))
        self.stopped = self._monitor(self.steps, structure)

    def segment(self, structure: Atoms, state: bytes | None) -> Segment:
        """The segment that ends with this structure and this state of the sampler."""
        walker = Walker(structure, state, self._walker.step + self.steps)
        return Segment(walker, self.steps, self.stopped, self.finished, self._frames, self._averages())

    def _averages(self) -> dict[str, float]:
        quantities = self._measured[0] if self._measured else {}
        return {quantity: float(np.mean([seen[quantity] for seen in self._measured])) for quantity in quantities}

    def _measure(self, structure: Atoms) -> dict[str, float]:
        measured = {}
        if structure.calc:
            measured["potential_energy"] = float(structure.get_potential_energy())
        if self._degrees:
            measured["temperature"] = 2 * float(structure.get_kinetic_energy()) / (self._degrees * units.kB)
        if structure.pbc.all():
            measured["volume"] = float(structure.get_volume())
        return measured


def _following(step: int, period: int) -> int:
    return step + period - step % period


def _frame(structure: Atoms) -> Atoms:
    """A copy that keeps the energy and the forces on all atoms, fixed ones too."""
    if not structure.calc:
        return structure.copy()
    energy, forces = structure.get_potential_energy(), structure.get_forces(apply_constraint=False)
    stress = structure.calc.results.get("stress") if structure.pbc.all() else None
    return with_label(structure, Label(energy, forces, None if stress is None else np.array(stress, float)))
