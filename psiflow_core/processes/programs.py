"""External programs, such as quantum-chemistry codes: started, watched, and ended with all their processes.

The guard of a pool (`psiflow_core.processes.guard`) ends a whole worker when its task exceeds its limits. Here an
excessive program is ended a little earlier: the worker survives, and the reference can report the reason. No process
of a program outlives it, and no program outlives its worker.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from psiflow_core.errors import ReferenceFailed
from psiflow_core.processes.guard import family
from psiflow_core.processes.limits import Awake, Pulse, end, memory_of
from psiflow_core.texts import one_line

PERIOD = 0.2
"""Time between two checks of a program's time and memory. [s]"""

PAUSE = 5.0
"""The part of a pause between two checks beyond this time is a suspension of the worker. [s]"""

MARGIN = 10.0
"""A program is ended this long before the guard would end the worker, but at most a tenth of its time before. [s]"""

SHARE = 0.95
"""The fraction of the pool's memory limit at which a program is ended."""

MARK = "PSIFLOW_PROGRAM"
"""The environment variable that marks all descendants of a program, even after their parents have ended."""

TAIL = 2**16
"""How much of the end of a file is searched for its last lines. [bytes]"""


class Limited(Protocol):
    """Limits of a task, such as `psiflow_core.components.Resources`; None for no limit."""

    @property
    def memory(self) -> float | None: ...  # [GiB]

    @property
    def wall_time(self) -> float | None: ...  # [s]

    @property
    def silence(self) -> float | None: ...  # [s]


class Allowance:
    """The time and memory that the programs of one task may use together. Make it at the start of the task.

    Time during which the worker is suspended does not count. Memory is that of the worker and all its processes, as
    for the guard.
    """

    def __init__(self, limits: Limited) -> None:
        self._limits = limits
        self._clock = Awake(PAUSE)

    @property
    def now(self) -> float:
        """Time since the task began. [s]"""
        return self._clock()

    def excess(self, silent: float) -> tuple[str, str] | None:
        """Reason and message, if the programs have used too much.

        Args:
            silent: how long the running program has done nothing. [s]
        """
        limits = self._limits
        if limits.wall_time is not None and self.now > _sooner(limits.wall_time):
            return "wall time", f"ran out of its {limits.wall_time:g} s of wall time"
        if limits.silence is not None and silent > _sooner(limits.silence):
            return "hung", f"has done nothing for {silent:.0f} s"
        used = 0.0 if limits.memory is None else sum(map(memory_of, family(os.getpid())))
        if limits.memory is not None and used > SHARE * limits.memory:
            return "memory", f"used {used:.2f} of the {limits.memory:.2f} GiB that its pool allows; give the pool more"
        return None


@dataclass(frozen=True)
class Program:
    """A command that does a task's work."""

    name: str
    """Its name in messages: `CP2K`."""
    words: Sequence[str]
    """The command line."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables in addition to the worker's own."""
    remedy: str = ""
    """The advice if it does not start: `set the option command`."""
    patience: float = 5.0
    """How long it may take to end when asked, before it is killed. [s]"""

    def run(self, folder: Path, output: Path, allowance: Allowance) -> int:
        """Run it in a folder, until it has ended with all its processes.

        Args:
            folder: its working directory.
            output: the file for its output and errors.
            allowance: the time and memory that it may use.

        Returns:
            Its exit code, negative for the signal that ended it. Some programs exit with 0 after an error.

        Raises:
            ReferenceFailed: "engine" if it cannot be started; "wall time", "memory" or "hung" if it used too much.
        """
        mark = uuid.uuid4().hex
        with output.open("wb") as printed:
            try:
                process = subprocess.Popen(
                    self.words,
                    cwd=folder,
                    env={**os.environ, **self.environment, MARK: mark},
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    process_group=0,
                    preexec_fn=_die_with_parent(os.getpid()),
                )
            except OSError as error:
                problem = f"{self.name} cannot be started ({error})"
                raise ReferenceFailed(f"{problem}; {self.remedy}" if self.remedy else problem) from error
            try:
                return self._watch(process, output, allowance)
            finally:
                _end(process, mark, self.patience)

    def _watch(self, process: subprocess.Popen[bytes], output: Path, allowance: Allowance) -> int:
        pulse = Pulse(allowance.now, family(process.pid))
        while True:
            try:
                return process.wait(PERIOD)
            except subprocess.TimeoutExpired:
                excess = allowance.excess(pulse.silence(allowance.now, family(process.pid)))
                if excess is not None:
                    reason, problem = excess
                    last = last_words(tail(output))
                    message = f"{self.name} {problem}; its last output: {last}; see {output}"
                    raise ReferenceFailed(message, reason) from None


def last_words(output: str, count: int = 4) -> str:
    """The last lines of a text, without blank lines and rules, joined into one line for an error."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" -*=")]
    return one_line(" / ".join(lines[-count:]), 1000) or "it printed nothing"


def tail(file: Path) -> str:
    """The end of a text file; empty if there is no such file."""
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - TAIL))
        return content.read().decode(errors="replace")


def _sooner(limit: float) -> float:
    return limit - min(MARGIN, 0.1 * limit)


def _end(process: subprocess.Popen[bytes], mark: str, patience: float) -> None:
    """End a program and all processes that it started.

    The program alone is asked first: `mpirun` ends its ranks. The remaining processes are then found as descendants,
    whatever their process group, and by their mark, even if their parents have ended.
    """
    known = family(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    left = [one for one in {*known, *_marked(mark)} if _runs(one)]
    if left:
        end(left)


def _marked(mark: str) -> list[psutil.Process]:
    """The processes of this user that descend from the program with this mark."""
    marked = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                marked.append(process)
        except (psutil.Error, OSError):  # it is another user's, or has just ended
            continue
    return marked


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """A function for a new process that makes Linux end it when its parent dies, even by SIGKILL."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork, where locks may be held
    set_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>

    def ask() -> None:
        prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
