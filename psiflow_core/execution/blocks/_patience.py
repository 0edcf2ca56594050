"""Patience with a scheduler that is unavailable: the pauses between attempts grow, and its words are shown."""

from __future__ import annotations

import logging
import time

from psiflow_core.execution.blocks._scaling import pause

logger = logging.getLogger("psiflow.pools")


class Patience:
    """With one kind of request to the scheduler of a pool."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._failures = 0
        self._next = 0.0
        self.words = ""
        """The scheduler's words since its last success; empty after it."""

    @property
    def ready(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self._next

    def failed(self, error: Exception, least: float = 0.0) -> None:
        """The next attempt comes after a longer pause, of ``least`` seconds at least."""
        self._failures += 1
        self._next = time.monotonic() + max(least, pause(self._failures))
        if str(error) != self.words:
            logger.warning("pool '%s': its scheduler says: %s", self._pool, error)
        self.words = str(error)

    def succeeded(self) -> None:
        self._failures, self._next, self.words = 0, 0.0, ""
