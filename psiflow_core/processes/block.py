"""The end of a block, as the workers in it see it.

The guard of a block knows its end: by the wall time, or by the scheduler's notice, which is SIGTERM. Workers read the
time left, and stop where they can go on later: a segment at a check, a training at a step. Like the guard, this module
needs no package but psutil.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from psiflow_core.processes.limits import PLACE, RunningTasks

ENDS = "PSIFLOW_BLOCK_ENDS"
"""The environment variable with the end of the block. [s since the epoch]"""

BEGAN = "PSIFLOW_BLOCK_BEGAN"
"""The environment variable with its beginning. [s since the epoch]"""

FAILED_SETUP = "PSIFLOW_SETUP_FAILED"
"""The environment variable with the last line of the block's set-up that has failed."""

SCHEDULED = ("SLURM_JOB_END_TIME",)
"""Variables of batch systems with the end of the job. [s since the epoch]"""

NOTICE = "ends"
"""The file of the guard with the end of the block, once its scheduler has asked it to end. [s since the epoch]"""

INTERRUPTED = "interrupted"
"""The guard's reason for the end of a task that ended with its block."""

GRACE = 25.0
"""How long tasks may go on after such a notice. Batch systems, Kubernetes and clouds allow about 30 s. [s]"""

WARNED = 5.0
"""How long before the end the guard writes into the folders of running tasks why they end. [s]"""

QUIET = 3.0
"""A block that was asked to end does so once no task has run for so long: the last answer takes its time. [s]"""

SPARE = 8.0
"""The time that is left free for writing a checkpoint or a walker, and for its way to the driver. [s]"""

WHOLE = 0.8
"""A block with this fraction of its time left takes any task: no other block would have more. Its time begins with its
first task, for the time before its workers answer is lost."""

STARTING = 120.0
"""How much of a block may be lost so. [s]"""


def ends() -> float:
    """When the block ends; infinite if it is not known. [s since the epoch]"""
    known = [_number(os.environ.get(ENDS, ""))]
    place = os.environ.get(PLACE)
    if place is not None:
        known.append(_noticed(Path(place)))
    return min(known)


def remaining() -> float:
    """The time left in the block; infinite if its end is not known. [s]"""
    return ends() - time.time()


def has_time(seconds: float) -> bool:
    """Whether a task that takes so long, and cannot stop before its end, may begin in this block. [s]"""
    left = remaining()
    return not noticed() and left >= SPARE and left >= min(seconds + SPARE, WHOLE * _lasts())


def noticed() -> bool:
    """Whether the scheduler has asked the block to end."""
    place = os.environ.get(PLACE)
    return place is not None and math.isfinite(_noticed(Path(place)))


class Pace:
    """Whether work that can stop now has to: the block would end before the next chance. Ask it at every chance."""

    def __init__(self) -> None:
        self._last, self._longest = time.monotonic(), 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        return noticed() or remaining() < SPARE + 1.5 * self._longest


def scheduled(begun: float, seconds: float | None, variables: Mapping[str, str]) -> float:
    """When a block ends, for its guard: by its wall time, or as its batch system says. [s since the epoch]

    Args:
        begun: the start of the guard. [s since the epoch]
        seconds: the wall time of the block.
        variables: the environment.
    """
    told = [_number(variables.get(name, "")) for name in SCHEDULED]
    return min(math.inf if seconds is None else begun + seconds, *told)


class Ending:
    """The end of a block for its guard.

    A file in the folder of a task says that it is lost with its block, and has not failed. It is written before the
    end, because the scheduler may kill the guard as well. A task that had nearly all of its block has failed.

    Args:
        began: the start of the guard. [s since the epoch]
        end: as `scheduled`.
        grace: how long tasks may go on after the scheduler's notice; 0 if the processes must end at once. [s]
    """

    def __init__(self, place: Path, tasks: RunningTasks, began: float, end: float, grace: float) -> None:
        self._place, self._tasks, self._end, self._grace = place, tasks, end, grace
        self._began, self._first = began, math.inf
        self._noticed, self._warned = False, False
        self._busy = 0.0
        self.asked = False
        """Whether the scheduler has asked the block to end; a signal handler may set it."""

    def over(self) -> bool:
        """Whether the processes of the block have to end now; call it often."""
        now = time.time()
        if self.asked and not self._noticed:
            self._noticed, self._busy, self._end = True, now, min(self._end, now + self._grace)
            self._give_notice()
        if now > self._end - (self._grace if self._noticed else WARNED) and not self._warned:
            self._warned = self._tasks.warn(self._why)
        if self._tasks.any:
            self._busy, self._first = now, min(self._first, now)
        return self._noticed and (now >= self._end or now > self._busy + min(QUIET, self._grace))

    def _why(self, ran: float) -> tuple[str, str]:
        """Reason and message of the end of a task that has run for so long. [s]"""
        lasts = self._end - min(self._first, self._began + STARTING)
        if self._noticed or ran + WARNED < WHOLE * lasts:
            return INTERRUPTED, "its block has ended"
        return "wall time", f"it ran for {ran:.0f} s, and its block lasts no longer: ask for a longer wall time"

    def _give_notice(self) -> None:
        """Tell the workers when the block ends."""
        unfinished = self._place / f"{NOTICE}.new"
        unfinished.write_text(str(self._end))
        unfinished.replace(self._place / NOTICE)


def _lasts() -> float:
    """How long the block lasts for tasks; this worker may be younger than the block. [s]"""
    began = _number(os.environ.get(BEGAN, "-inf"))
    return ends() - max(began, min(_first_task(), began + STARTING))


@cache
def _first_task() -> float:
    """When this worker was first asked about the block. [s since the epoch]"""
    return time.time()


def _noticed(place: Path) -> float:
    with contextlib.suppress(OSError):
        return _number((place / NOTICE).read_text())
    return math.inf


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf
