"""The files of a node: by their hashes, each fetched once, for all workers of the node.

A file on the shelf is never written to: its time of change is 0, and one with another time or another size is
fetched again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from psiflow_core.execution.transport.waybill import Cargo

ROOM = 8 * 2**30
"""Beyond so many bytes, files that were not used for `KEPT` seconds are removed."""

KEPT = 3600.0


class Shelf:
    """Files by their hashes, in a folder that the workers of a node share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shelf"

    def file(self, cargo: Cargo) -> Path:
        """The place of a file: it keeps its name, which may be the hash of what it says."""
        return self.folder / cargo.digest[:2] / cargo.digest / cargo.path.name

    def complete(self, cargos: Sequence[Cargo], fetch: Callable[[list[tuple[Cargo, Path]]], None]) -> None:
        """Put the files on the shelf that are not there yet. One worker at a time fetches, for all.

        Args:
            fetch: writes files to paths.
        """
        if all(map(self._has, cargos)):
            return
        with self._alone():
            lacking = {cargo.digest: cargo for cargo in cargos if not (self._has(cargo) or self._has_renamed(cargo))}
            fetch([(cargo, self.file(cargo)) for cargo in lacking.values()])
            for cargo in lacking.values():
                self._seal(self.file(cargo))
            for cargo in cargos:
                self._has_renamed(cargo)
            if lacking:
                self._make_room()

    def _has(self, cargo: Cargo) -> bool:
        file = self.file(cargo)
        try:
            found = file.stat()
            if (found.st_size, found.st_mtime_ns) != (cargo.size, 0):
                return False
            os.utime(file, ns=(time.time_ns(), 0))
        except OSError:
            return False
        return True

    def _has_renamed(self, cargo: Cargo) -> bool:
        """Whether the same file is there under another name; it then gets this name, too."""
        file = self.file(cargo)
        for other in file.parent.iterdir() if file.parent.is_dir() else ():
            if other != file and self._has(cargo.model_copy(update={"path": other})):
                file.unlink(missing_ok=True)
                os.link(other, file)
                return True
        return False

    def _seal(self, file: Path) -> None:
        file.chmod(0o444)
        os.utime(file, ns=(time.time_ns(), 0))

    def _make_room(self) -> None:
        """Remove the files that were not used for longest, beyond the room that there is."""
        found = [(file.stat(), file) for file in self.folder.glob("*/*/*")]
        excess, now = sum(one.st_size for one, _ in found) - ROOM, time.time()
        for one, file in sorted(found, key=lambda pair: pair[0].st_atime):
            if excess <= 0 or now - one.st_atime < KEPT:
                return
            file.unlink(missing_ok=True)
            excess -= one.st_size

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one worker of the node at a time fetches, if the file system has locks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
