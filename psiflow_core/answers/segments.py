"""Checks of samplers' segments: the same atoms at new positions, and complete calls of the monitor."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ase import Atoms

from psiflow_core.components import Monitor, Prediction, SamplingTask, Segment, Walker
from psiflow_core.components.checking import an, array, count, number, reading, told, wrong
from psiflow_core.constraints import fixed_atoms
from psiflow_core.electrons import CHARGES
from psiflow_core.errors import StructureError
from psiflow_core.structures import MOMENTS, Plain, charge_of, spin_of, to_plain

KEPT = ("masses", CHARGES, MOMENTS)
"""Arrays that a sampler must not change."""

SAME = 1e-6
"""Tolerance for equal positions. [Å]"""


class Attendance:
    """The monitor of a walker as passed to its sampler: it records its calls and its answers.

    Raises:
        WrongAnswer: it was called with other atoms, or after it had stopped the walker. The sampler may suppress the
            error: `segment` raises it again.
    """

    def __init__(self, monitor: Monitor, walker: Walker, task: SamplingTask, who: str) -> None:
        self._monitor = monitor
        self._origin = Origin(walker.structure, who)
        self._task = task
        self._who = who
        self.steps: list[int] = []
        """Steps of the segment at which it was called."""
        self.reason: str | None = None
        """Its reason to stop."""
        self.fault: BaseException | None = None
        """The first error raised inside the sampler by the monitor or by the forces."""
        self._last: Atoms | None = None

    def __call__(self, step: int, structure: Atoms) -> str | None:
        with self.remembered(), reading(self._who):
            self._attend(step, structure)
        with self.remembered():
            self.reason = self._monitor(self.steps[-1], structure)
        return self.reason

    @contextlib.contextmanager
    def remembered(self) -> Iterator[None]:
        """Record an error: a sampler that continues after it has no valid trajectory."""
        try:
            yield
        except BaseException as fault:
            self.fault = self.fault or fault
            raise

    def noting(self, ask: Callable[[Atoms], Prediction]) -> Callable[[Atoms], Prediction]:
        """The source of the walker's forces, wrapped to record its errors as well."""

        def noted(atoms: Atoms) -> Prediction:
            with self.remembered():
                return ask(atoms)

        return noted

    def _attend(self, step: int, structure: Atoms) -> None:
        at = count(step, "steps to the monitor", self._who)
        if at > self._task.steps:
            raise wrong(self._who, f"called the monitor at step {at} of a segment of {self._task.steps}")
        if self.reason is not None:
            raise wrong(self._who, f"went on to step {at} after the monitor had stopped it ({self.reason})")
        self._last = self._origin.recognise(structure, "showed the monitor").copy()
        self.steps.append(at)

    def require(self, steps: int) -> None:
        """Check that the monitor was called as often as required in this many steps; raises `WrongAnswer`."""
        every = self._task.check_every
        missing = sorted({*range(every, steps + 1, every), *([steps] if steps else [])} - set(self.steps))
        if missing:
            raise wrong(
                self._who,
                f"took {steps} steps and called the monitor {len(self.steps)} times: it has to after every {every} "
                f"steps and after the last, and did not after step {missing[0]}",
            )

    def require_end(self, ended: Atoms) -> None:
        """Check that the monitor's last structure is the end of the walker; raises `WrongAnswer`."""
        pairs = [] if self._last is None else [(self._last.positions, ended.positions), (self._last.cell, ended.cell)]
        if not all(np.allclose(*pair, rtol=0.0, atol=SAME, equal_nan=True) for pair in pairs):
            raise wrong(self._who, "returned a walker at another position than in the last call of the monitor")


class Origin:
    """The structure given to a sampler, for comparison with the returned ones."""

    def __init__(self, structure: Atoms, who: str) -> None:
        self.structure = structure.copy()
        self._who = who
        self._info: Plain = to_plain(structure)["info"]

    def recognise(self, found: object, did: str) -> Atoms:
        """The structure, if it consists of the same atoms; raises `WrongAnswer`."""
        if not isinstance(found, Atoms):
            raise wrong(self._who, f"{did} {told(found)} instead of a structure")
        change = self._change(found)
        if change:
            raise wrong(self._who, f"{did} a structure {change}")
        return found

    def _change(self, found: Atoms) -> str | None:
        before = self.structure
        if not np.array_equal(found.arrays.get("numbers"), before.numbers):
            return self._composition(found)
        for name, shape in (("positions", (len(before), 3)), ("momenta", (len(before), 3))):
            values = np.asarray(found.arrays.get(name, before.positions))
            if values.shape != shape or values.dtype.kind not in "fiu":
                return f"whose {name} are no real numbers of shape {shape}"
        if not np.array_equal(found.pbc, before.pbc):
            return f"of another periodicity: {before.pbc.tolist()} became {found.pbc.tolist()}"
        if not before.pbc.any() and not np.array_equal(found.cell, before.cell):
            return "whose cell is another, although it is not periodic"
        for name in KEPT:
            if not np.array_equal(_array_of(found, name), _array_of(before, name)):
                return f"whose {name} are others"
        return self._let_go(found) or self._told_otherwise(found)

    def _let_go(self, found: Atoms) -> str | None:
        """A moved fixed atom, even by the last bit, or an atom fixed in only one of the two structures."""
        fixed, shifts = fixed_atoms(self.structure), found.positions - self.structure.positions
        moved = np.flatnonzero(fixed & shifts.any(axis=1) & np.isfinite(shifts).all(axis=1))
        if len(moved):
            shift = np.linalg.norm(shifts[moved[0]])
            return f"in which atom {moved[0]} has moved by {shift:.2g} Å, although it is fixed"
        others = np.flatnonzero(fixed != fixed_atoms(found))
        if not len(others):
            return None
        return f"in which atom {others[0]} is {'no longer' if fixed[others[0]] else 'now'} fixed"

    def _composition(self, found: Atoms) -> str:
        was, is_now = self.structure.get_chemical_formula(), found.get_chemical_formula()
        return "whose atoms are in another order" if was == is_now else f"of other atoms: {was} became {is_now}"

    def _told_otherwise(self, found: Atoms) -> str | None:
        """The difference in a structure's info: charge, spin, and other entries."""
        for name, value in self._info.items():
            if name not in found.info:
                return f"that has lost info[{name!r}]"
            if not np.array_equal(found.info[name], value):
                return f"of another info[{name!r}]: {value!r} became {told(found.info[name])}"
        try:
            same = (charge_of(found), spin_of(found)) == (charge_of(self.structure), spin_of(self.structure))
        except StructureError as error:
            return f"of which {error}"
        return None if same else "of another charge or spin"


def segment(found: object, walker: Walker, task: SamplingTask, monitor: Attendance, who: str) -> Segment:
    """The checked segment of a sampler for a walker.

    Non-finite numbers are allowed only if the monitor stopped the walker.

    Raises:
        WrongAnswer: it does not match the walker or the task, or calls of the monitor are missing.
        PsiflowError: an error of the monitor or the forces that the sampler suppressed.
    """
    if monitor.fault is not None:
        raise monitor.fault
    with reading(who):
        return _segment(an(found, Segment, who), walker, task, monitor, who)


def _segment(given: Segment, walker: Walker, task: SamplingTask, monitor: Attendance, who: str) -> Segment:
    steps = count(given.steps, "steps", who)
    if steps > task.steps:
        raise wrong(who, f"took {steps} steps where {task.steps} were asked for")
    monitor.require(steps)
    if given.stopped != monitor.reason:
        raise wrong(who, f"says that it was stopped by {told(given.stopped)}; the monitor said {monitor.reason!r}")
    origin, finished = Origin(walker.structure, who), bool(an(given.finished, bool | np.bool_, who))
    ended = _walker(an(given.walker, Walker, who), walker.step + steps, origin, who)
    monitor.require_end(ended.structure)
    if monitor.reason is None:
        _require_motion(walker.structure, ended.structure, steps, task, finished, who)
    frames = [_frame(frame, origin, who) for frame in an(given.frames, list | tuple, who)]
    averages = _averages(given.averages, monitor.reason, who)
    return Segment(ended, steps, given.stopped, finished, frames, averages)


def _walker(found: Walker, step: int, origin: Origin, who: str) -> Walker:
    structure = origin.recognise(found.structure, "returned")
    if count(found.step, "steps of the walker", who) != step:
        raise wrong(who, f"returned a walker at step {found.step}, which has to be at step {step}")
    state = None if found.state is None else bytes(an(found.state, bytes, who))
    return Walker(structure, state, step)


def _require_motion(before: Atoms, after: Atoms, steps: int, task: SamplingTask, finished: bool, who: str) -> None:
    """Check that a segment without a stop has moved the atoms, to finite positions."""
    parts = (after.positions, np.asarray(after.cell), after.get_momenta())
    if not all(np.isfinite(part).all() for part in parts):
        raise wrong(who, "returned positions, a cell or momenta that are not finite, and had not been stopped")
    if finished or not task.steps:
        return
    if not steps:
        raise wrong(who, f"took none of {task.steps} steps, and does not say that the trajectory has finished")
    if np.array_equal(before.positions, after.positions) and np.array_equal(before.cell, after.cell):
        raise wrong(who, f"did not move the atoms in {steps} steps")


def _frame(found: object, origin: Origin, who: str) -> Atoms:
    """A frame with energy and forces in its calculator, if it has one."""
    frame = origin.recognise(found, "returned among its frames")
    results: dict[str, Any] = getattr(frame.calc, "results", {})
    if "energy" in results:
        number(results["energy"], "an energy of a frame", who)
    if "forces" in results:
        array(results["forces"], (len(frame), 3), "forces of a frame", who)
    return frame


def _averages(found: object, stopped: str | None, who: str) -> dict[str, float]:
    """Averages as Python numbers; of a stopped walker, only the finite ones."""
    given = {
        an(name, str, who): number(value, f"an average {name!r}", who) for name, value in an(found, dict, who).items()
    }
    sick = [name for name, value in given.items() if not math.isfinite(value)]
    if sick and stopped is None:
        raise wrong(who, f"returned an average {sick[0]!r} of {given[sick[0]]}")
    return {name: value for name, value in given.items() if name not in sick}


def _array_of(structure: Atoms, name: str) -> Any:
    """An array of a structure, or its default value."""
    if structure.has(name):
        return structure.get_array(name)
    if name == "masses":
        return structure.get_masses()
    return structure.get_initial_charges() if name == CHARGES else structure.get_initial_magnetic_moments()
