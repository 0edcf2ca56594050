"""A file that arrives in pieces. It is there when it is complete and its hash is right, and not before."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from pathlib import Path

from psiflow_core.errors import FileCorrupt
from psiflow_core.files import make_durable, make_folder


class Arrival:
    """A file on its way. Pieces arrive in order; a piece that comes twice is ignored.

    Args:
        durable: the file also survives a loss of power.
    """

    def __init__(self, target: Path, digest: str, size: int, *, durable: bool = False) -> None:
        make_folder(target.parent, durable)
        self._target, self.digest, self._size, self._durable = target, digest, size, durable
        self._temporary = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}"
        self._stream = self._temporary.open("xb")
        self._hash = hashlib.sha256()
        self.length = 0
        """Bytes that have arrived."""

    def take(self, offset: int, piece: bytes) -> bool:
        """Add a piece; returns whether the file is complete.

        Raises:
            FileCorrupt: a piece is missing, or the file is complete and has another hash.
            OSError: it cannot be written.
        """
        if offset > self.length:
            raise FileCorrupt(f"{self._target} has not arrived: a piece of it is missing")
        if offset == self.length:
            self._stream.write(piece)
            self._hash.update(piece)
            self.length += len(piece)
        if self.length < self._size:
            return False
        self._complete()
        return True

    def discard(self) -> None:
        """Remove an incomplete file."""
        with contextlib.suppress(OSError):  # its folder is gone, or the disk is full
            self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def _complete(self) -> None:
        self._stream.flush()
        if self._durable:
            os.fsync(self._stream.fileno())
        self._stream.close()
        if self._hash.hexdigest() != self.digest:
            raise FileCorrupt(f"{self._target} has changed on its way, or while it was read: its hash differs")
        os.replace(self._temporary, self._target)
        if self._durable:
            make_durable(self._target)
