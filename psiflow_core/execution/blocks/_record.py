"""The record of a pool's jobs in its folder: what a later driver needs to cancel the jobs of a dead one.

The tag of the pool, with which the names of all its jobs begin, is written before the first job is submitted. So a job
is found although its driver died before the scheduler's answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psiflow_core.components import Executor
from psiflow_core.errors import PoolFailed
from psiflow_core.processes.claims import claimed
from psiflow_core.structures import Plain

RECORD = "jobs"
"""The record's file in a pool's folder."""

DRIVER = "driver"
"""The file next to it that the pool's driver holds as a claim (`psiflow_core.processes.claims`)."""


@dataclass(frozen=True)
class Left:
    """A pool's jobs that may not have ended."""

    executor: str
    """Its name."""
    options: Plain
    tag: str
    jobs: tuple[str, ...]


class Record:
    """The record of a pool that runs; every line is on the disk before the method returns.

    Raises:
        OSError: it cannot be written.
        PoolFailed: another driver uses the folder.
    """

    def __init__(self, folder: Path, executor: Executor, tag: str) -> None:
        self._claim = contextlib.ExitStack()
        if other := self._claim.enter_context(claimed(folder / DRIVER)):
            raise PoolFailed(f"{folder} is used by {other}; give the context another folder")
        self._file = folder / RECORD
        self._lock = threading.Lock()
        self._write({"tag": tag, "executor": executor.name, "options": executor.options()})

    def submitted(self, block: str, job: str) -> None:
        self._write({"job": job, "block": block})

    def ended(self, jobs: Iterable[str]) -> None:
        self._write({"ended": sorted(jobs)})

    def close(self, empty: bool) -> None:
        """The driver ends; says whether no job of the pool is left."""
        if empty:
            close(self._file)
        self._claim.close()

    def _write(self, line: Plain) -> None:
        with self._lock:
            _append(self._file, line)


def close(file: Path) -> None:
    """Note that no job of a record is left."""
    _append(file, {"closed": True})


def left(file: Path) -> Left | None:
    """What a record leaves; None if nothing, or if it was never begun.

    A last line that is cut off was never believed: its job is found by the tag.
    """
    begun: Plain | None = None
    jobs: dict[str, None] = {}
    for line in _lines(file):
        if "tag" in line:
            begun = line
        if "job" in line:
            jobs[str(line["job"])] = None
        for job in line.get("ended", ()):
            jobs.pop(str(job), None)
        if line.get("closed"):
            begun = None
            jobs.clear()
    return None if begun is None else Left(begun["executor"], begun["options"], begun["tag"], tuple(jobs))


def _lines(file: Path) -> list[dict[str, Any]]:
    found = []
    for line in file.read_bytes().splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            found.append(content)
    return found


def _append(file: Path, line: Plain) -> None:
    with file.open("ab") as stream:
        stream.write(b"\n" + json.dumps(line).encode() + b"\n")  # the last line may have been cut off
        stream.flush()
        os.fsync(stream.fileno())
