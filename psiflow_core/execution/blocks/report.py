"""The state of a pool, for people: its workers, its blocks, and the words of its scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SHOWN = 3
"""Different words of waiting blocks that are shown."""


@dataclass(frozen=True)
class BlockReport:
    """One block that has not ended."""

    block: str
    """Its number in the pool."""
    job: str
    """Its id for the scheduler."""
    phase: Literal["waiting", "running"]
    words: str
    """The scheduler's own words, why it waits for instance."""
    workers: int
    """Workers that are present; 0 for a block that runs means that it starts."""
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class PoolReport:
    """The state of a pool."""

    pool: str
    wanted: int
    """Tasks that run or wait for a worker."""
    workers: int
    """Workers that are present and take tasks."""
    running: int
    """Tasks that were sent to workers and have not ended."""
    blocks: tuple[BlockReport, ...] = ()
    excluded: tuple[str, ...] = ()
    """Hosts that get no more tasks."""
    trouble: str = ""
    """The words of a scheduler that does not answer, or does not take a block now."""
    ended: tuple[str, ...] = field(default=())
    """The last blocks that ended before their workers answered, with their last output."""

    @property
    def told(self) -> str:
        """One line for people."""
        waiting = [one for one in self.blocks if one.phase == "waiting"]
        starting = [one for one in self.blocks if one.phase == "running" and not one.workers]
        words = [f"{self.running} of {self.workers} workers busy"]
        if waiting:
            reasons = list(dict.fromkeys(one.words for one in waiting if one.words))[:SHOWN]
            words.append(f"{len(waiting)} blocks in the queue" + (f" ({'; '.join(reasons)})" if reasons else ""))
        if starting:
            words.append(f"{len(starting)} blocks start")
        if self.excluded:
            words.append(f"excluded hosts: {', '.join(self.excluded)}")
        if self.trouble:
            words.append(f"the scheduler says: {self.trouble}")
        return f"{self.pool}: {'; '.join(words)}"
