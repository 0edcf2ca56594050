"""The blocks that a pool has submitted: their states, those that were of no use, and their last words."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from psiflow_core.execution.blocks._crew import Crew
from psiflow_core.execution.blocks._said import last_words, said
from psiflow_core.execution.blocks.report import BlockReport
from psiflow_core.execution.blocks.scheduler import Block, BlockState

logger = logging.getLogger("psiflow.pools")

IN_VAIN = 3
"""Number of consecutive blocks that may end before any of their workers was of use. A queue may be long: ended blocks
are counted, not time."""

PROVED = 30.0
"""A block whose workers have been present for so long has started well. [s]"""

TAIL = 10_000
"""Characters at the end of an output that are searched for its last words."""


@dataclass
class Known:
    """A block that was submitted."""

    block: Block
    number: str
    job: str
    submitted: float = field(default_factory=time.monotonic)
    state: BlockState = field(default_factory=lambda: BlockState("waiting"))
    ran: float | None = None
    """When it was first seen to run."""
    ended: float | None = None
    proved: bool = False
    """Whether its workers had a task, or were present for a while."""
    given_back: bool = False
    useless: bool = False
    """Whether it was given back because none of its workers took a task."""

    def timed_out(self, walltime: float | None) -> bool:
        """Whether it has ended because its wall time had passed. [s]"""
        if walltime is None or self.ran is None or self.ended is None:
            return False
        return self.ended - self.ran > walltime - PROVED


class Book:
    """The blocks of a pool.

    Args:
        folder: the pool's folder.
        crew: the managers that are present.
        walltime: wall time of a block, if known. [s]
    """

    def __init__(self, label: str, folder: Path, crew: Crew, walltime: float | None) -> None:
        self._label, self._folder, self._crew, self._walltime = label, folder, crew, walltime
        self._known: dict[str, Known] = {}
        self._lock = threading.Lock()

    def add(self, known: Known) -> None:
        with self._lock:
            self._known[known.number] = known
        logger.info("block %s of pool '%s' is job %s", known.number, self._label, known.job)

    def get(self, number: str) -> Known | None:
        return self._known.get(number)

    def alive(self) -> list[Known]:
        """The blocks that have not ended."""
        with self._lock:
            return [one for one in self._known.values() if one.ended is None]

    def note(self, known: Known, state: BlockState) -> None:
        """Take note of the state of a block."""
        with self._lock:
            known.state = state
            if state.phase == "running" and known.ran is None:
                known.ran = time.monotonic()
            if state.phase != "ended" or known.ended is not None:
                return
            known.ended = time.monotonic()
        words = f"{' (interrupted)' if state.interrupted else ''}{f': {state.words}' if state.words else ''}"
        logger.info("block %s of pool '%s' (job %s) has ended%s", known.number, self._label, known.job, words)

    def prove(self) -> None:
        """Take note of the blocks whose workers are of use."""
        for one in self.alive():
            one.proved |= any(manager.tasks or manager.idle > PROVED for manager in self._crew.of(one.number))

    def in_vain(self) -> list[Known]:
        """The latest blocks that ended before they were of use; none while a block with workers runs."""
        with self._lock:
            known = list(self._known.values())
        if any(one.ended is None and self._crew.of(one.number) for one in known):
            return []
        last = max((int(one.number) for one in known if one.proved), default=-1)
        ended = [one for one in known if one.ended is not None and int(one.number) > last]
        return [one for one in ended if self._is_in_vain(one)]

    def _is_in_vain(self, known: Known) -> bool:
        """A block may be given back, or taken away by its scheduler, without a fault of its own."""
        if known.given_back:
            return known.useless
        return not known.state.interrupted or known.timed_out(self._walltime)

    def words_of(self, known: Known) -> str:
        """The last output of a block, under its guard or before it started, or else its scheduler's words."""
        outputs = sorted(known.block.folder.glob(f"{known.block.name}.*"))
        told = [said(self._folder, f"block-{known.number}")]
        told += [file.read_text(errors="replace")[-TAIL:] for file in outputs if file.suffix in (".err", ".out")]
        return next((words for text in (*told, known.state.words) if (words := last_words(text))), "")

    def why(self, ended: Sequence[Known]) -> str:
        """Why a pool cannot have workers, if the latest blocks ended in vain."""
        last = ended[-1]
        code = "" if last.state.code is None else f" (exit code {last.state.code})"
        words = f"Block {last.number}{code}: {self.words_of(last) or 'no error output'}"
        if all(one.useless or one.timed_out(self._walltime) for one in ended):
            return f"{self._too_short(len(ended))}. {words}"
        blocks = f"its last {len(ended)} blocks ended before they answered"
        return f"the workers of pool '{self._label}' do not start: {blocks}. {words}"

    def _too_short(self, ended: int) -> str:
        blocks = f"the last {ended} blocks of pool '{self._label}' took no task"
        if self._walltime is None:
            return f"{blocks}: they ended too soon after their start; ask for a longer wall time"
        return f"{blocks}: walltime={self._walltime:.0f} s was over when their workers had started; raise it"

    def reports(self) -> tuple[BlockReport, ...]:
        """The blocks that have not ended, for people."""
        return tuple(map(self._report, self.alive()))

    def _report(self, known: Known) -> BlockReport:
        managers = self._crew.of(known.number)
        hosts = tuple(sorted({one.host for one in managers}))
        waits = known.state.phase == "waiting" and not managers
        phase: Literal["waiting", "running"] = "waiting" if waits else "running"
        workers = sum(one.workers for one in managers)
        return BlockReport(known.number, known.job, phase, known.state.words, workers, hosts)
