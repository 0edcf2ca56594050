"""The checks of `psiflow doctor` for this machine: folder, locks, memory, cores, processes."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.text import Text

from psiflow_core.errors import CampaignError
from psiflow_core.execution.blocks import machine_cores
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.processes import guard

DISK = 1.0
"""The disk space that a small campaign's models, labels and walkers need. [GiB]"""


MEMORY = 1.0
"""The memory that a worker with an engine needs at least. [GiB]"""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    verdict: Literal["good", "bad", "open"]
    """`open`: the check could not be made, or its subject is optional."""
    check: str
    found: str
    fix: str = ""
    """The way to repair it; every bad finding has one."""

    def line(self) -> Text:
        """The finding as displayed."""
        sign, style = {"good": ("✔", "green"), "bad": ("✘", "bold red"), "open": ("–", "yellow")}[self.verdict]
        text = Text.assemble((sign, style), f" {self.check}: {self.found}")
        return text.append(f"\n  → {self.fix}", style="bold") if self.fix else text


def campaign_folder(folder: Path) -> Iterator[Finding]:
    """Whether the folder can be written, locks files and has space; before it exists, its nearest parent is checked."""
    place = _nearest(folder.absolute())
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".psiflow-doctor-") as scratch:
            yield Finding("good", "folder", f"{place} is writable")
            yield _locking(Path(scratch))
            yield _journal(Path(scratch))
    except OSError as error:
        fix = "choose another folder with --folder, or change the permissions of this one"
        yield Finding("bad", "folder", f"{place} cannot be written: {error.strerror}", fix)
        return
    free = shutil.disk_usage(place).free / 2**30
    fix = "" if free >= DISK else f"free at least {DISK:.0f} GiB"
    yield Finding("bad" if fix else "good", "disk", f"{free:.1f} GiB are free", fix)


def machine() -> Iterator[Finding]:
    """Memory and cores."""
    free = psutil.virtual_memory().available / 2**30
    fix = "" if free >= MEMORY else f"end other programs: a worker needs {MEMORY:.0f} GiB"
    yield Finding("bad" if fix else "good", "memory", f"{free:.1f} GiB are free", fix)
    yield Finding("good", "cores", f"{machine_cores()} may be used")


def stale_processes() -> Iterator[Finding]:
    """Whether processes are left of campaigns whose driver has died; they should have ended themselves."""
    stale = guard.orphans()
    if stale:
        time.sleep(8 * guard.PERIOD)  # they may be about to end: a guard gives its command two seconds
        stale = [process for process in stale if process.is_running()]
    pids = " ".join(str(process.pid) for process in stale)
    if stale:
        called = ", ".join(f"{count} × {name}" for name, count in Counter(map(_name, stale)).items())
        problem = f"{len(stale)} are left of a driver that has died: {called}"
        yield Finding("bad", "processes", problem, f"end them: kill -9 {pids}")
    else:
        yield Finding("good", "processes", "none are left of a driver that has died")


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _locking(scratch: Path) -> Finding:
    """Two drivers must not use one folder: of two requests for a lock, the second must be refused."""
    fix = "choose a folder on a file system with locks; a local disk has them"
    try:
        with (scratch / "lock").open("w") as first, (scratch / "lock").open("w") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("good", "locks", "files in the folder can be locked")
    except OSError as error:
        return Finding("bad", "locks", f"files in the folder cannot be locked: {error.strerror}", fix)
    return Finding("bad", "locks", "two processes get the same lock in the folder", fix)


def _journal(scratch: Path) -> Finding:
    """A journal must be readable while a driver writes it."""
    file = scratch / "journal.sqlite"
    try:
        writer = Journal(file, write=True)
        writer.append("opened", {})
        reader = Journal(file)
        seen = len(list(reader.events()))
        reader.close()
        writer.close()
    except CampaignError as error:
        return Finding("bad", "journal", str(error), "choose a folder on a local disk")
    if seen != 1:
        problem = "SQLite does not return the data that were written"
        return Finding("bad", "journal", problem, "choose a folder on a local disk")
    return Finding("good", "journal", f"SQLite {sqlite3.sqlite_version} works, and can be read while it is written")


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "ended"
