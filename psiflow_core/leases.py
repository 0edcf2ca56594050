"""What a task may take of its worker: told by the worker, seen to by the guard of the pool.

A task that hangs cannot end itself, and Parsl cannot end it either. So a worker writes a lease before it begins
a task, and takes it away afterwards; the guard (`psiflow_core.guard`), which runs beside the workers, ends the
worker, with every process that the task started, when the task takes more than its lease says. Why is written
into the task's folder, where the driver finds it. Like the guard, this needs no package but psutil.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from psiflow_core.errors import FileCorrupt
from psiflow_core.files import read_json

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


def end_children() -> None:
    """End whatever a failed engine has left running, where this process is a worker and has no other children."""
    if PLACE in os.environ:
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
    unfinished.write_text(json.dumps(told))
    unfinished.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


@dataclass
class _Sign:
    """When a task last showed a sign of life."""

    began: float
    """Which task it was."""
    when: float
    cpu: float
    """Seconds that its processes had used by then."""


class Leases:
    """The guard's view of all leases of its pool."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._signs: dict[int, _Sign] = {}

    def broken(self, processes: list[psutil.Process]) -> list[psutil.Process]:
        """The processes of tasks that took more than they may, out of all that the guard watches.

        Why is written into the folders of these tasks.
        """
        files = [file for file in self._place.iterdir() if file.name.isdigit()]
        if not files:
            return []
        families = _families(processes)
        ended = []
        for file in files:
            family, told = families.get(int(file.name)), _read(file)
            if family is None:
                file.unlink(missing_ok=True)  # its worker is gone
                continue
            verdict = told and self._verdict(told, family)
            if told and verdict:
                _write_verdict(told["folder"], *verdict)
                ended += family
        return ended

    def _verdict(self, told: Mapping[str, Any], family: list[psutil.Process]) -> tuple[str, str] | None:
        """Reason and message, if the task must end."""
        ran = time.monotonic() - told["began"]
        if told["wall_time"] and ran > told["wall_time"]:
            return "wall time", f"it ran longer than the {told['wall_time']:g} s that its pool allows"
        used = sum(map(_memory, family))
        if told["memory"] and used > told["memory"]:
            return "memory", f"it used {used:.2f} GiB, more than the {told['memory']:.2f} GiB that its pool allows"
        quiet = self._quiet(told["began"], family)
        if told["silence"] and quiet > told["silence"]:
            return "hung", f"its processes have done nothing for {quiet:.0f} s"
        return None

    def _quiet(self, began: float, family: list[psutil.Process]) -> float:
        """Seconds for which the task's processes have used next to no processor time."""
        now, cpu, worker = time.monotonic(), sum(map(_seconds, family)), family[0].pid
        sign = self._signs.get(worker)
        if sign is None or sign.began != began or cpu - sign.cpu > IDLE * (now - sign.when) + 0.05 or cpu < sign.cpu:
            self._signs[worker] = _Sign(began, now, cpu)
            return 0.0
        return now - sign.when


def read_verdict(folder: Path) -> tuple[str, str] | None:
    """Why the guard ended a task, reason and message; told once."""
    file = folder / VERDICT
    try:
        told = read_json(file, ("reason", "message"))
    except FileCorrupt:  # there is none, or a full disk has cut it short
        return None
    file.unlink()
    return str(told["reason"]), str(told["message"])


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
    try:
        return read_json(file, ("folder", "began", *LIMITS))
    except FileCorrupt:  # the task has just ended
        return None


def _write_verdict(folder: str | None, reason: str, message: str) -> None:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / VERDICT).write_text(json.dumps({"reason": reason, "message": message}))


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
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
