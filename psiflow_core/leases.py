"""What a task may take of its worker: told by the worker, seen to by the guard of the pool.

A task that hangs cannot end itself, and Parsl cannot end it either. So a worker writes a lease before it begins
a task, and takes it away afterwards; the guard (`psiflow_core.guard`), which runs beside the workers, ends the
worker, with every process that the task started, when the task takes more than its lease says. Why is written
into the task's folder, where the driver finds it. Like the guard, this needs no package but psutil.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PLACE = "PSIFLOW_LEASES"
"""The environment variable that tells workers where their guard looks for leases."""

VERDICT = "ended.json"
"""The file in a task's folder that says why the guard ended it."""

LIMITS = ("wall_time", "silence", "memory")
"""What a lease says of a task, and None where that is without limit."""

IDLE = 0.01
"""A task is silent while its processes use less than this share of a core."""

GIB = 2**30


def end(processes: list[psutil.Process], patience: float = 2.0) -> None:
    """Ask processes to end, and kill those that do not within ``patience`` seconds."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(processes, timeout=patience)
    for process in stubborn:
        _signal(process, signal.SIGKILL)


def is_worker() -> bool:
    """Whether this process runs tasks under the eyes of a guard, and nothing else."""
    return PLACE in os.environ


def end_children() -> None:
    """End whatever a failed engine has left running, where this process is a worker and has no other children."""
    if is_worker():
        end(psutil.Process().children(recursive=True))


@contextlib.contextmanager
def lease(folder: str | None, limits: Mapping[str, Any]) -> Iterator[None]:
    """Run a task under the eyes of the guard, where there is one.

    Args:
        folder: the task's; None if nobody will look there.
        limits: `wall_time` [s], `silence` [s] and `memory` [GiB]; what is missing or None is without limit.
    """
    place = os.environ.get(PLACE)
    if place is None:
        yield
        return
    file = Path(place) / str(os.getpid())
    told = {"folder": folder, "began": time.monotonic(), **{name: limits.get(name) for name in LIMITS}}
    unfinished = file.with_suffix(".new")
    file.parent.mkdir(parents=True, exist_ok=True)  # there are machines that clear away what has lain there for days
    unfinished.write_text(json.dumps(told))
    unfinished.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


class Awake:
    """Seconds that this process was awake: the clock stands still while it is suspended.

    Args:
        longest: seconds between two looks; what a pause is longer than that, the process was not awake.
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


@dataclass
class _Sign:
    """When a task last showed a sign of life. Times are by the guard's clock: what it did not see does not count."""

    began: float
    """Which task it was."""
    first: float
    """When the guard first saw the task."""
    when: float
    cpu: float
    """Seconds that its processes had used by then."""


class Leases:
    """The guard's view of all leases of its pool."""

    def __init__(self, place: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._signs: dict[int, _Sign] = {}

    def broken(self, processes: list[psutil.Process]) -> list[psutil.Process]:
        """The processes of tasks that took more than they may, out of all that the guard watches.

        Why is written into the folders of these tasks, as far as that can be.
        """
        files = [file for file in self._place.iterdir() if file.name.isdigit()] if self._place.is_dir() else []
        if not files:
            return []
        families = _families(processes)
        ended = []
        for file in files:
            family, told = families.get(int(file.name)), _read(file)
            if family is None:
                file.unlink(missing_ok=True)  # its worker is gone
                continue
            known = told is not None and {"folder", "began", *LIMITS} <= told.keys()
            verdict = self._verdict(told, family) if told is not None and known else None
            if told and verdict:
                _write_verdict(told["folder"], *verdict)
                ended += family
        return ended

    def _verdict(self, told: Mapping[str, Any], family: list[psutil.Process]) -> tuple[str, str] | None:
        """Reason and message, if the task must end."""
        now = self._clock()
        sign = self._sign(told["began"], family, now)
        if told["wall_time"] and now - sign.first > told["wall_time"]:
            return "wall time", f"it ran longer than the {told['wall_time']:g} s that its pool allows"
        used = sum(map(_memory, family))
        if told["memory"] and used > told["memory"]:
            return "memory", f"it used {used:.2f} GiB, more than the {told['memory']:.2f} GiB that its pool allows"
        if told["silence"] and now - sign.when > told["silence"]:
            return "hung", f"its processes have done nothing for {now - sign.when:.0f} s"
        return None

    def _sign(self, began: float, family: list[psutil.Process], now: float) -> _Sign:
        """The last sign of life: when the task's processes used more than next to no processor time."""
        cpu, worker = sum(map(_seconds, family)), family[0].pid
        sign = self._signs.get(worker)
        if sign is None or sign.began != began:
            self._signs[worker] = _Sign(began, now, now, cpu)
        elif cpu - sign.cpu > IDLE * (now - sign.when) + 0.05 or cpu < sign.cpu:
            sign.when, sign.cpu = now, cpu
        return self._signs[worker]


def read_verdict(folder: Path) -> tuple[str, str] | None:
    """Why the guard ended a task, reason and message; told once."""
    for file in (folder / VERDICT, _elsewhere(folder)):
        told = _read(file)
        with contextlib.suppress(OSError):  # where nothing can be written, nothing can be taken away
            file.unlink(missing_ok=True)
        if told and {"reason", "message"} <= told.keys():
            return str(told["reason"]), str(told["message"])
    return None


def _elsewhere(folder: Path) -> Path:
    """Where a verdict stands that cannot be written into its task's folder: the disk there is full, or it is gone."""
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"psiflow-ended-{os.getuid()}-{key}.json"


def _families(processes: list[psutil.Process]) -> dict[int, list[psutil.Process]]:
    """Every process with all that descend from it, itself first, by its number."""
    children: dict[int, list[psutil.Process]] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process)

    def family(process: psutil.Process) -> list[psutil.Process]:
        return [process, *(one for child in children.get(process.pid, ()) for one in family(child))]

    return {process.pid: family(process) for process in processes}


def _read(file: Path) -> dict[str, Any] | None:
    """A lease or a verdict; None if there is none, for the task has just ended, or none that can be read."""
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _write_verdict(folder: str | None, reason: str, message: str) -> None:
    """Say why a task is ended: in its folder, else elsewhere on this machine, and where nothing can be written, to
    whoever reads what the guard says. Its end does not wait for that."""
    told = json.dumps({"reason": reason, "message": message})
    for file in (Path(folder) / VERDICT, _elsewhere(Path(folder))) if folder is not None else ():
        try:
            file.parent.mkdir(exist_ok=True)
            file.with_suffix(".new").write_text(told)
            file.with_suffix(".new").replace(file)
        except OSError as error:
            complain(f"cannot write into {file.parent} why a task was ended ({error.strerror}): {told}")
        else:
            return


def complain(text: str) -> None:
    """Say something on standard error, to whoever may read it."""
    with contextlib.suppress(OSError, ValueError):  # nobody does, or the disk behind it is full
        print(f"psiflow's guard: {text}", file=sys.stderr, flush=True)


def _memory(process: psutil.Process) -> float:
    """What a process has for itself. [GiB]"""
    try:
        found = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(found.rss - getattr(found, "shared", 0)) / GIB


def _seconds(process: psutil.Process) -> float:
    """Processor time that a process has used. [s]"""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):  # it is gone, or another user's: the others are ended all the same
        process.send_signal(number)
