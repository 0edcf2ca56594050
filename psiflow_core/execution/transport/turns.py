"""The order in which couriers are answered: a thousand nodes may want a model at once, and the driver is small.

A courier asks one thing at a time, so that its next message tells that it has read the last answer.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

Asked = tuple[bytes, Sequence[bytes]]
"""A courier's identity, and the frames of its message."""


class Turns:
    """Messages that wait for their turn, while unread answers take all the room.

    Args:
        room: bytes of unread answers. [bytes]
        patience: an answer that is not read for so long takes no room any longer: its courier has gone. [s]
    """

    def __init__(self, room: int, patience: float) -> None:
        self._room, self._patience = room, patience
        self._waiting: deque[Asked] = deque()
        self._unread: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        """By courier: when it was answered, and the length of the answer."""
        self._taken = 0

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    def arrived(self, courier: bytes, frames: Sequence[bytes]) -> None:
        """A courier asks."""
        self._read(courier)
        self._waiting.append((courier, frames))

    def answered(self, courier: bytes, length: int) -> None:
        """A courier was answered. [bytes]"""
        self._read(courier)
        if length:
            self._unread[courier] = time.monotonic(), length
            self._taken += length

    def next(self) -> Iterator[Asked]:
        """The messages to answer now, each after the one before was answered."""
        self._forget()
        while self._waiting and self._taken < self._room:
            yield self._waiting.popleft()

    def _read(self, courier: bytes) -> None:
        _, length = self._unread.pop(courier, (0.0, 0))
        self._taken -= length

    def _forget(self) -> None:
        deadline = time.monotonic() - self._patience
        while self._unread and next(iter(self._unread.values()))[0] < deadline:
            self._read(next(iter(self._unread)))
