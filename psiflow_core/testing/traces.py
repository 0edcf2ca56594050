"""What work leaves behind in the process that did it, which others work in too; and whether it ends at all."""

from __future__ import annotations

import locale
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ase import Atoms

from psiflow_core.structures import Plain

MARK = "PSIFLOW_WORK_UNDER_TEST"
"""The environment variable by which processes are known that work has started."""

GRACE = 2.0
"""How long threads and processes that are ending already may take. [s]"""


@dataclass(frozen=True)
class Traces:
    """What is as it was, or not, after some work: before and after of each."""

    folder: tuple[Any, Any]
    variables: tuple[Any, Any]
    random: tuple[Any, Any]
    errors: tuple[Any, Any]
    settings: tuple[Any, Any]
    files: tuple[Any, Any]
    threads: tuple[Any, Any]
    processes: tuple[Any, Any]

    @property
    def any(self) -> bool:
        return any(before != after for before, after in (getattr(self, one.name) for one in fields(self)))


def left_by(work: Callable[[Path], object], root: Path) -> Traces:
    """The traces that work leaves outside its own folder, in an empty working directory.

    What leaves something is done once more: the first call of an engine imports it, which may change a setting once.
    """
    found = _traces(work, root / "first")
    return _traces(work, root / "second") if found.any else found


def _traces(work: Callable[[Path], object], root: Path) -> Traces:
    mark = uuid.uuid4().hex
    with _elsewhere(root, mark):
        there = set(threading.enumerate())
        before = _state(root, mark, there)
        work(root / "own")
        after = _settled(root, mark, there, before)
    return Traces(*((before[one.name], after[one.name]) for one in fields(Traces)))


@contextmanager
def _elsewhere(root: Path, mark: str) -> Iterator[None]:
    """An empty working directory and an empty folder for temporary files; changes are undone."""
    for name in ("own", "current", "temporary"):
        (root / name).mkdir(parents=True)
    folder, variables, errors, rights = Path.cwd(), dict(os.environ), np.geterr(), _umask()
    numbers, numbers_of_numpy = random.getstate(), np.random.get_state()
    random.seed(mark)  # of which nobody can have thought
    np.random.seed(int(mark[:8], 16))
    os.environ.update({MARK: mark, "TMPDIR": str(root / "temporary")})
    os.chdir(root / "current")
    tempfile.tempdir = None
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        os.umask(rights)
        np.seterr(**errors)
        random.setstate(numbers)
        np.random.set_state(numbers_of_numpy)
        tempfile.tempdir = None


def _state(root: Path, mark: str, there: set[threading.Thread]) -> Plain:
    return {
        "folder": os.getcwd(),
        "variables": dict(os.environ),
        "random": (hash(random.getstate()), str(np.random.get_state()), _torch("get_rng_state")),
        "errors": np.geterr(),
        "settings": _settings(),
        "files": sorted(_files(root)),
        "threads": sorted(thread.name for thread in threading.enumerate() if thread not in there),
        "processes": sorted(_processes(mark)),
    }


def _settled(root: Path, mark: str, there: set[threading.Thread], before: Plain) -> Plain:
    """The state afterwards, once ending processes and threads have ended."""
    end = time.monotonic() + GRACE
    while True:
        after = _state(root, mark, there)
        ended = after["files"] == before["files"] and not (after["threads"] or after["processes"])
        if ended or time.monotonic() > end:
            return after
        time.sleep(0.05)


def _settings() -> Plain:
    """Of the process as a whole."""
    return {
        "umask": _umask(),
        "locale": locale.setlocale(locale.LC_ALL),
        "recursion": sys.getrecursionlimit(),
        "signals": {one.name: str(signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)},
        "numpy": np.get_printoptions()["precision"],
        "torch": _torch("get_default_dtype"),
    }


def _files(root: Path) -> Iterator[str]:
    """Files and folders outside the folder of the work; some may be about to vanish."""
    for folder, within, files in os.walk(root):  # passes over files that vanish meanwhile
        if Path(folder) == root:
            within.remove("own")
        yield from (str(Path(folder, name).relative_to(root)) for name in (*within, *files))


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def _torch(what: str) -> str:
    """A state of torch where that is in use; it is never imported for this."""
    torch = sys.modules.get("torch")
    return str(getattr(torch, what)().tolist() if what == "get_rng_state" else getattr(torch, what)()) if torch else ""


def _processes(mark: str) -> Iterator[str]:
    """Processes that carry the mark, this one apart."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            alive = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(MARK) == mark:
                yield " ".join(process.cmdline())


def portrait(atoms: Atoms) -> Plain:
    """All data of a structure: the input of work has to be the same afterwards."""
    return {
        "numbers": atoms.numbers.tolist(),
        "cell": np.asarray(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": {name: repr(value) for name, value in atoms.info.items()},
        "arrays": {name: repr(array.tolist()) for name, array in atoms.arrays.items()},
        "constraints": [repr(constraint.todict()) for constraint in atoms.constraints],
        "results": {name: repr(value) for name, value in getattr(atoms.calc, "results", {}).items()},
        "calculator": type(atoms.calc).__name__,
    }


@contextmanager
def within(patience: float, what: str) -> Iterator[list[str]]:
    """Fail work that takes longer than this [s]; its result is put into the list."""
    late: list[str] = []

    def too_long(signum: int, frame: object) -> None:
        late.append(what)
        pytest.fail(f"{what} hangs: it has not ended within {patience:g} s; `patience` may be raised")

    armed = signal.getitimer(signal.ITIMER_REAL)[0]
    if threading.current_thread() is not threading.main_thread() or 0 < armed < patience:
        yield late  # no signal comes to a thread, and a sooner alarm of somebody else's is heeded
        return
    begun, handler = time.monotonic(), signal.signal(signal.SIGALRM, too_long)
    left, again = signal.setitimer(signal.ITIMER_REAL, patience)  # an alarm of somebody else's goes on afterwards
    try:
        yield late
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 0.001), again)


_readings: list[list[str]] = []
_writings: set[str] = set()
_listening = False


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if not _readings or event not in ("open", "os.rename"):
        return
    path, flags = (arguments[0], arguments[2]) if event == "open" else (arguments[1], os.O_WRONLY)
    if not isinstance(path, str | bytes | os.PathLike):
        return
    file = os.path.realpath(os.fsdecode(path))
    if flags & (os.O_WRONLY | os.O_TRUNC):
        _writings.add(file)
    elif file not in _writings:
        _readings[-1].append(file)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The files that Python opens meanwhile for reading, those apart that were written meanwhile."""
    global _listening
    if not _listening:
        sys.addaudithook(_listen)  # for ever: Python has no way to take it away
        _listening = True
    found: list[str] = []
    _readings.append(found)
    try:
        yield found
    finally:
        _readings.remove(found)
        _writings.clear()


def together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """The result of each in its own thread; all threads begin at once."""
    begin = threading.Barrier(len(works))

    def do(work: Callable[[], Any]) -> Any:
        begin.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(do, works))
