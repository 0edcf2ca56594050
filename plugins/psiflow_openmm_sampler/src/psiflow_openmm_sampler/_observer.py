"""What is seen of a segment while it runs: checks, frames, averages."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

from psiflow_core.components import Monitor, SamplingTask


class Observer:
    """Calls the monitor, keeps frames, and averages over the checks."""

    def __init__(self, task: SamplingTask, monitor: Monitor, degrees_of_freedom: int, start: int) -> None:
        """
        Args:
            start: the walker's step where the segment begins; frames are counted from the walker's start.
        """
        self._task = task
        self._start = start
        self._monitor = monitor
        self._degrees = degrees_of_freedom
        self._seen: list[dict[str, float]] = []
        self.frames: list[Atoms] = []
        self.asked: int | None = None
        """The step at which the monitor was asked last."""

    def next(self, step: int) -> int:
        """The next step of the segment at which there is something to see."""
        events = [self._task.steps, _next(step, self._task.check_every)]
        if self._task.stride:
            events.append(_next(self._start + step, self._task.stride) - self._start)
        return min(events)

    def see(self, step: int, atoms: Atoms, last: bool = False) -> str | None:
        """Look at the structure after a step; the monitor's reason to stop, if it has one.

        Args:
            step: of the segment.
            atoms: with energy and forces in its calculator.
            last: whether the segment ends here in any case.
        """
        if self._task.stride and (self._start + step) % self._task.stride == 0:
            self.frames.append(atoms)
        due = last or step == self._task.steps or step % self._task.check_every == 0
        return self.ask(step, atoms) if due else None

    def ask(self, step: int, atoms: Atoms) -> str | None:
        """The monitor's reason to stop at this step of the segment, if it has one."""
        self.asked = step
        self._seen.append(self._measure(atoms))
        return self._monitor(step, atoms)

    def averages(self) -> dict[str, float]:
        """Means over the checks."""
        quantities = self._seen[0] if self._seen else {}
        return {quantity: float(np.mean([seen[quantity] for seen in self._seen])) for quantity in quantities}

    def _measure(self, atoms: Atoms) -> dict[str, float]:
        measured = {"potential_energy": float(atoms.calc.results["energy"])}
        if atoms.has("momenta") and self._degrees:
            measured["temperature"] = 2 * atoms.get_kinetic_energy() / (self._degrees * units.kB)
        if atoms.pbc.all():
            measured["volume"] = float(atoms.get_volume())
        return measured


def _next(step: int, period: int) -> int:
    return step + period - step % period
