"""The tasks of a pool that have not begun: they wait with the driver until a worker is free.

So the newest wish comes first, a task that no block has begun is never lost with one, and a long queue of a batch
system delays nothing but the workers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from psiflow_core.errors import PoolFailed
from psiflow_core.execution.pools import Key, Started
from psiflow_core.execution.tasks.request import Request

AHEAD = 0.05
"""Tasks that end within this time are sent before a worker is free: the way of a task takes milliseconds. [s]"""

RECENT = 32
"""Tasks that have ended last, by which the rate is known."""


class Client(Protocol):
    """Whoever waits for tasks. It knows each by its ticket."""

    def takes(self, kind: str) -> float:
        """How long a task of this kind has taken at most; 0 if that is not known. [s]"""

    def sent(self, ticket: int, pool: Key, started: Started, future: Future[str]) -> None:
        """The task was sent."""

    def refused(self, ticket: int, error: PoolFailed) -> None:
        """Its workers do not start."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A task that waits. There may be many, so it is small."""

    request: Request
    takes: float
    """As in `Grant`, before the client knows more."""
    client: Client
    ticket: int


class Backlog:
    """The waiting tasks of one pool, and the number of those that were sent.

    All but `ended` are called under the lock of `Workers`.
    """

    def __init__(self) -> None:
        self._waiting: deque[Parcel] = deque()
        self._lock = threading.Lock()
        self._ends: deque[float] = deque(maxlen=RECENT)
        self.sent = 0
        """Tasks that were sent, and have not ended."""

    def __len__(self) -> int:
        """Waiting tasks."""
        return len(self._waiting)

    def add(self, parcel: Parcel, first: bool) -> None:
        """Let a task wait, before all others or after them."""
        if first:
            self._waiting.appendleft(parcel)
        else:
            self._waiting.append(parcel)

    def take(self, free: int) -> Iterator[Parcel]:
        """The tasks to send now.

        Args:
            free: free workers; negative if more tasks were sent than there are workers.
        """
        for _ in range(min(len(self._waiting), free + self._ahead())):
            with self._lock:
                self.sent += 1
            yield self._waiting.popleft()

    def refuse(self, error: PoolFailed) -> None:
        """Tell all waiting tasks that their workers do not start."""
        while self._waiting:
            parcel = self._waiting.popleft()
            parcel.client.refused(parcel.ticket, error)

    def withdraw(self, client: Client, tickets: Collection[int]) -> None:
        """Drop waiting tasks of a client."""
        self._waiting = deque(
            parcel for parcel in self._waiting if parcel.client is not client or parcel.ticket not in tickets
        )

    def ended(self, _: Future[str]) -> None:
        """A task that was sent has ended; called by any thread."""
        with self._lock:
            self.sent -= 1
            self._ends.append(time.monotonic())

    def _ahead(self) -> int:
        """Tasks that end within `AHEAD` at the present rate."""
        with self._lock:
            if len(self._ends) < RECENT:
                return 0
            return int(AHEAD * RECENT / max(time.monotonic() - self._ends[0], 1e-3))
