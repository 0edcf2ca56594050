"""Walkers between two segments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from psiflow_core.sampling.schemes import ARRIVED


@dataclass
class WalkerRecord:
    """What the campaign knows of a walker between two segments."""

    id: int
    file: str | None = None
    """Where its state is; None at its starting structure."""
    digest: str | None = None
    segments: int = 0
    """Segments that have ended, whatever their end."""
    steps: int = 0
    since: int = 0
    """Steps since it started, or started over."""
    stage: int = 0
    """How far along the path of incremental learning its next segment goes."""
    generation: int | None = None
    """The model of its last segment."""
    waiting_for: int | None = None
    """The candidate that it stopped at: it goes on with a model that knows it."""
    settled: int | None = None
    """The generation under which it reached its own end (an optimisation): it starts over with the next."""
    resets: Counter[str] = field(default_factory=Counter)
    """Reasons."""
    temperature: float | None = None
    """Mean over its last segment. [K]"""
    stopped: str | None = None
    """Why its last segment ended early."""
    recalled: str | None = None
    """Why it starts over when it is back from the segment under way."""
    idle: int = 0
    """Segments in a row, of this generation, that gave no candidate."""
    astray: int = 0
    """How many of them ended with a walker that had to start over."""

    def set_off(self) -> None:
        """Begin a segment; from the start, if the last one came to the trajectory's own end."""
        if self.settled is not None:
            self.file = self.digest = self.settled = None
            self.since = 0
        self.waiting_for = None

    def reset(self, reason: str) -> None:
        """Go back to the starting structure."""
        self.file = self.digest = self.waiting_for = self.settled = self.recalled = None
        self.since = 0
        self.resets[reason] += 1

    def advance(self, last: int) -> None:
        """Go a stage further along the path, after the last one back to the start."""
        self.stage += 1
        self.settled = None
        if self.stage > last:
            self.stage = 0
            self.reset(ARRIVED)

    def progress(self) -> None:
        """Something new was met, or a new model is ready: the counts of fruitless segments begin again."""
        self.idle = self.astray = 0
