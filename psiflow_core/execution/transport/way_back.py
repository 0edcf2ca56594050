"""The files that a task writes, on their way to the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psiflow_core.errors import FileCorrupt, WorkerLost
from psiflow_core.execution.tasks.request import Request
from psiflow_core.execution.transport.courier import Courier, Refused
from psiflow_core.execution.transport.waybill import Cargo
from psiflow_core.files import file_digest

PERIOD = 30.0
"""Time between two visits to a running task, for the files that its next attempt would need. [s]"""

Stamp = tuple[int, int]
"""Time of change and size of a file."""


class WayBack:
    """Keeps the driver's folders of a task as they are here.

    Args:
        driver: from a local path to the driver's.
        local: the request with local paths; what is in its folders now, the driver has.
    """

    def __init__(self, courier: Courier, token: str, driver: Callable[[Path], Path], local: Request) -> None:
        self._courier, self._token, self._driver, self._local = courier, token, driver, local
        self._lock = threading.Lock()
        self._there = {file: stamp for file in _inside(local.places) if (stamp := _stamp(file)) is not None}
        """Files that the driver has."""

    @contextmanager
    def visited(self) -> Iterator[None]:
        """While a task runs: bring the files that its next attempt would need, every now and then."""
        ended = threading.Event()
        visits = threading.Thread(target=self._visit, args=(ended,), daemon=True)
        visits.start()
        try:
            yield
        finally:
            ended.set()
            visits.join()

    def bring_all(self) -> None:
        """Bring everything that the task has written, and remove what it has removed.

        Raises:
            WorkerLost, Refused: as `Courier`.
            OSError: a file cannot be read.
        """
        self._bring(_inside(self._local.places))
        folder = self._local.folder
        gone = [file for file in self._there if folder and file.is_relative_to(folder) and not file.exists()]
        if gone:
            self._courier.remove(self._token, [self._driver(file) for file in gone])
            self._there = {file: stamp for file, stamp in self._there.items() if file not in gone}

    def _visit(self, ended: threading.Event) -> None:
        while not ended.wait(PERIOD):
            with suppress(WorkerLost, Refused, FileCorrupt, OSError):  # `bring_all` meets it again, if it lasts
                self._bring(self._local.kept())

    def _bring(self, files: Iterable[Path]) -> None:
        with self._lock:
            stamps = {file: stamp for file in files if (stamp := _stamp(file)) not in (None, self._there.get(file))}
            self._courier.bring(self._token, ((self._cargo(file, stamp), file) for file, stamp in stamps.items()))
            self._there |= stamps

    def _cargo(self, file: Path, stamp: Stamp) -> Cargo:
        return Cargo(path=self._driver(file), digest=file_digest(file), size=stamp[1])


def _inside(folders: Iterable[Path]) -> list[Path]:
    """The files in these folders, at any depth."""
    return list(dict.fromkeys(file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()))


def _stamp(file: Path) -> Stamp | None:
    """None if there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
