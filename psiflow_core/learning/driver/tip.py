"""The tip of a journal: the number and the seal of its last event, in a separate file."""

from __future__ import annotations

import os
from pathlib import Path

from psiflow_core.files import read_sealed, sealed, write_atomically


class Tip:
    """The file with the number and the seal of the last event: too short to be half written, and updated in place."""

    SIZE = 256
    """Bytes of the file, filled up with spaces: it can be updated on a full disk."""

    def __init__(self, journal: Path) -> None:
        self._file = journal.with_suffix(".tip")
        self._descriptor: int | None = None

    def number(self) -> int:
        """The number of the last event; 0 before the first.

        Raises:
            FileCorrupt: the file is missing or damaged.
        """
        return int(read_sealed(self._file)["number"])

    def begin(self, number: int, seal: str) -> None:
        """Replace the file, and keep it open."""
        write_atomically(self._file, self._content(number, seal), durable=False)
        self._descriptor = os.open(self._file, os.O_WRONLY)

    def point(self, number: int, seal: str) -> None:
        """Record a new last event."""
        if self._descriptor is not None:
            os.pwrite(self._descriptor, self._content(number, seal), 0)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _content(self, number: int, seal: str) -> bytes:
        return sealed({"number": number, "event": seal}).ljust(self.SIZE)
