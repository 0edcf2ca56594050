"""Limits of tasks in time and memory: written down by the worker, enforced by the guard of the pool.

A task that hangs cannot end itself, and Parsl cannot end it either. So a worker writes the limits of a task into a
file before it begins the task, and removes the file afterwards. The guard (`psiflow_core.processes.guard`), a process
of its own, ends the worker and every process of the task when the task exceeds its limits. It writes the reason into
the task's folder, where the driver finds it. Like the guard, this module needs no package but psutil.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

PLACE = "PSIFLOW_RUNNING_TASKS"
"""The environment variable with the folder in which workers write the limits of their running tasks."""

VERDICT = "ended.json"
"""The file in a task's folder with the reason why the guard ended it."""

LIMITS = ("wall_time", "silence", "memory")
"""The limits of a task; None for no limit."""

SENDING = 20.0
"""How long the reason for the end of a task may be on its way to a driver that does not see the task's folder. [s]"""

IDLE = 0.01
"""A task is silent while its processes use less than this fraction of a core."""

GIB = 2**30


def end(processes: list[psutil.Process], patience: float = 2.0) -> None:
    """Ask processes to end, and kill those that do not within ``patience`` seconds."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(processes, timeout=patience)
    for process in stubborn:
        _signal(process, signal.SIGKILL)


def is_worker() -> bool:
    """Whether this process is a worker, which a guard watches."""
    return PLACE in os.environ


def end_children() -> None:
    """End the processes that a failed engine has left, if this process is a worker, which has no other children."""
    if is_worker():
        end(psutil.Process().children(recursive=True))


@contextlib.contextmanager
def limited(folder: str | None, limits: Mapping[str, Any], send: Sequence[str] = ()) -> Iterator[None]:
    """Run a task within limits, which the guard enforces if there is one.

    Args:
        folder: the task's folder, for the reason of an early end; None if nothing reads it.
        limits: `wall_time` [s], `silence` [s] and `memory` [GiB]; a missing one, or None, is no limit.
        send: the words of the command that sends the reason to a driver that does not see the folder.
    """
    place = os.environ.get(PLACE)
    if place is None:
        yield
        return
    file = Path(place) / str(os.getpid())
    task = {"folder": folder, "send": list(send), "began": time.monotonic()}
    task |= {name: limits.get(name) for name in LIMITS}
    unfinished = file.with_suffix(".new")
    if folder is not None:
        (Path(folder) / VERDICT).unlink(missing_ok=True)  # of an earlier attempt
    file.parent.mkdir(parents=True, exist_ok=True)  # some machines delete temporary folders after a few days
    unfinished.write_text(json.dumps(task))
    unfinished.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


class Awake:
    """A clock of this process that stands still while the process is suspended.

    Args:
        longest: the longest time between two readings that counts; the rest of a longer pause is a suspension. [s]
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._seen, self._last = 0.0, time.monotonic()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._seen += min(now - self._last, self._longest)
            self._last = now
            return self._seen


class Pulse:
    """Signs of life of a group of processes: they use noticeable processor time.

    Args:
        now: the present time on the observer's clock. [s]
    """

    def __init__(self, now: float, processes: list[psutil.Process]) -> None:
        self.first = now
        self._when = now
        self._used = sum(map(_seconds, processes))

    def silence(self, now: float, processes: list[psutil.Process]) -> float:
        """Time since the last sign of life. [s]"""
        used = sum(map(_seconds, processes))
        if used - self._used > IDLE * (now - self._when) + 0.05 or used < self._used:
            self._when, self._used = now, used
        return now - self._when


class RunningTasks:
    """The guard's view of the running tasks of its pool."""

    def __init__(self, place: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._pulses: dict[int, tuple[float, Pulse]] = {}
        """For each worker: when its task began, and the signs of life since then."""

    def excessive(self, processes: list[psutil.Process]) -> list[psutil.Process]:
        """The processes of tasks that exceed their limits, out of all processes that the guard watches.

        The reason is written into the folders of these tasks, if possible.
        """
        files = self._files()
        if not files:
            return []
        families = _families(processes)
        ended = []
        for file in files:
            family, task = families.get(int(file.name)), _read(file)
            if family is None:
                file.unlink(missing_ok=True)  # its worker has ended
                continue
            known = task is not None and {"folder", "began", *LIMITS} <= task.keys()
            verdict = self._verdict(task, family) if task is not None and known else None
            if task and verdict:
                _write_verdict(task["folder"], *verdict)
                _send_verdict(task.get("send", ()))
                ended += family
        return ended

    def warn(self, why: Callable[[float], tuple[str, str]]) -> bool:
        """Write why they may end soon into the folders of the running tasks; returns whether there are any.

        Args:
            why: reason and message for a task that has run for so long. [s]
        """
        tasks = [task for file in self._files() if (task := _read(file)) is not None and "began" in task]
        for task in tasks:
            _write_verdict(task.get("folder"), *why(time.monotonic() - task["began"]))
        return bool(tasks)

    @property
    def any(self) -> bool:
        """Whether a task is running."""
        return bool(self._files())

    def _files(self) -> list[Path]:
        return [file for file in self._place.iterdir() if file.name.isdigit()] if self._place.is_dir() else []

    def _verdict(self, task: Mapping[str, Any], family: list[psutil.Process]) -> tuple[str, str] | None:
        """Reason and message, if the task must end."""
        now = self._clock()
        pulse = self._pulse(task["began"], family, now)
        silence = pulse.silence(now, family)
        if task["wall_time"] and now - pulse.first > task["wall_time"]:
            return "wall time", f"it ran longer than the {task['wall_time']:g} s that its pool allows"
        used = sum(map(memory_of, family))
        if task["memory"] and used > task["memory"]:
            return "memory", f"it used {used:.2f} GiB, more than the {task['memory']:.2f} GiB that its pool allows"
        if task["silence"] and silence > task["silence"]:
            return "hung", f"its processes have done nothing for {silence:.0f} s"
        return None

    def _pulse(self, began: float, family: list[psutil.Process], now: float) -> Pulse:
        worker = family[0].pid
        if worker not in self._pulses or self._pulses[worker][0] != began:
            self._pulses[worker] = (began, Pulse(now, family))
        return self._pulses[worker][1]


def read_verdict(folder: Path) -> tuple[str, str] | None:
    """Reason and message of the guard that ended a task; its file is then removed."""
    for file in (folder / VERDICT, _elsewhere(folder)):
        verdict = _read(file)
        with contextlib.suppress(OSError):  # where nothing can be written, nothing can be removed
            file.unlink(missing_ok=True)
        if verdict and {"reason", "message"} <= verdict.keys():
            return str(verdict["reason"]), str(verdict["message"])
    return None


def _elsewhere(folder: Path) -> Path:
    """The file of a verdict that cannot be written into its task's folder: the disk is full, or the folder is gone."""
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"psiflow-ended-{os.getuid()}-{key}.json"


def _families(processes: list[psutil.Process]) -> dict[int, list[psutil.Process]]:
    """Every process with its descendants, itself first, by its number."""
    children: dict[int, list[psutil.Process]] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process)

    def family(process: psutil.Process) -> list[psutil.Process]:
        return [process, *(one for child in children.get(process.pid, ()) for one in family(child))]

    return {process.pid: family(process) for process in processes}


def _read(file: Path) -> dict[str, Any] | None:
    """The limits of a task, or a verdict; None if there is none, because the task has just ended, or it is damaged."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_verdict(folder: str | None, reason: str, message: str) -> None:
    """Write why a task is ended: in its folder, else elsewhere on this machine, else on the guard's standard error.

    The task is ended even if nothing can be written."""
    verdict = json.dumps({"reason": reason, "message": message})
    for file in (Path(folder) / VERDICT, _elsewhere(Path(folder))) if folder is not None else ():
        try:
            file.parent.mkdir(exist_ok=True)
            file.with_suffix(".new").write_text(verdict)
            file.with_suffix(".new").replace(file)
        except OSError as error:
            complain(f"cannot write into {file.parent} why a task was ended ({error.strerror}): {verdict}")
        else:
            return


def _send_verdict(words: Sequence[str]) -> None:
    """Run the command that sends a verdict to the driver. The task is ended even if it fails."""
    if not words:
        return
    try:
        subprocess.run(words, timeout=SENDING, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        complain(f"cannot send to the driver why a task was ended: {error}")


def complain(text: str) -> None:
    """Print a message of the guard on standard error."""
    with contextlib.suppress(OSError, ValueError):  # its reader has gone, or the disk behind it is full
        print(f"psiflow's guard: {text}", file=sys.stderr, flush=True)


def memory_of(process: psutil.Process) -> float:
    """The memory of a process, without shared pages. [GiB]"""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - getattr(memory, "shared", 0)) / GIB


def _seconds(process: psutil.Process) -> float:
    """Processor time that a process has used. [s]"""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):  # it has ended, or is another user's: the others are ended all the same
        process.send_signal(number)
