"""The files that a task reads, by path and hash."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

from psiflow_core.execution.tasks.request import Request
from psiflow_core.files import file_digest
from psiflow_core.identity import Typed

REMEMBERED = 100_000
"""Files whose hashes the driver remembers: about 25 MB."""


class Cargo(Typed):
    """A file."""

    path: Path
    """Its path for the driver."""
    digest: str
    """SHA-256 of its content."""
    size: int
    """[bytes]"""


class Waybill(Typed):
    """The files that a task reads. A file that the driver lacks is missing for the worker, too."""

    named: tuple[Cargo, ...] = ()
    """Those that its request names."""
    kept: tuple[Cargo, ...] = ()
    """Those that it finds in its folders."""


class Digests:
    """Hashes of files, computed again if a file has changed."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()

    def cargo(self, paths: Iterable[Path]) -> Iterator[Cargo]:
        """The files among these paths that exist and can be read."""
        for path in dict.fromkeys(paths):
            try:
                found = path.stat()
                key = str(path), found.st_ino, found.st_size, found.st_mtime_ns
                digest = self._known[key] if key in self._known else file_digest(path)
            except OSError:
                continue
            self._known[key] = digest
            self._known.move_to_end(key)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            yield Cargo(path=path, digest=digest, size=found.st_size)


def waybill(request: Request, digests: Digests) -> Waybill:
    """The files of a request, on the driver; raises `FileCorrupt` if a list of labels cannot be read."""
    places = set(request.places)
    named = [path for path in request.paths() if path not in places and path.is_file()]
    for field, kind in request.lists.items():
        named += getattr(request, field).read(kind).paths()
    kept = [path for path in request.kept() if path.is_file()]
    return Waybill(named=tuple(digests.cargo(named)), kept=tuple(digests.cargo(kept)))
