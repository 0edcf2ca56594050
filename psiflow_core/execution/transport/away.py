"""A task on a node that does not see the driver's files: it runs with local paths, and its files come back."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from psiflow_core.execution.tasks.manifest import ManifestFile
from psiflow_core.execution.tasks.request import Request
from psiflow_core.execution.transport.courier import Courier, courier_of
from psiflow_core.execution.transport.shelf import Shelf
from psiflow_core.execution.transport.ticket import Ticket
from psiflow_core.execution.transport.verdict import keep_ticket
from psiflow_core.execution.transport.way_back import WayBack
from psiflow_core.identity import Relocation
from psiflow_core.processes.limits import PLACE
from psiflow_core.structures import Plain

Work = Callable[[Plain], Plain]
"""From a request to an outcome."""

Keep = Callable[[Plain, Path | None], Plain]
"""Writes an outcome into a task's folder."""


def carried(ticket: Ticket, request: Request, work: Work, keep: Keep) -> Plain:
    """The outcome of a task whose files are the driver's. When this returns, the driver has what the task has written.

    Raises:
        WorkerLost: the driver does not answer.
        Refused: the driver has a failure of its own.
        FileCorrupt, OSError: a file cannot be brought here.
    """
    courier, place = courier_of(ticket), _place()
    with _folder(place) as root:
        keep_ticket(root, ticket)
        site = Site(root, Shelf(place))
        site.settle(request, courier, ticket.token)
        local = site.local(request)
        back = WayBack(courier, ticket.token, site.driver, local)
        with back.visited():
            outcome = site.spoken(work(local.to_plain()))
        back.bring_all()
        outcome = keep(outcome, local.folder)
        back.bring_all()
    return outcome


class Site(Relocation):
    """The driver's paths on this node: those of files on the shelf, the others beneath the folder of the task."""

    def __init__(self, root: Path, shelf: Shelf) -> None:
        self._root, self._shelf = root, shelf
        self._named: dict[Path, Path] = {}
        """Files on the shelf, by their paths for the driver."""

    def of(self, path: Path) -> Path:
        return self._named.get(path) or self._root / path.relative_to(path.anchor)

    def driver(self, local: Path) -> Path:
        """The driver's path of a file beneath the folder of the task."""
        return Path("/") / local.relative_to(self._root)

    def settle(self, request: Request, courier: Courier, token: str) -> None:
        """Bring the files of a request here. Those of its own folder, which it may change, are its own copies."""
        waybill = courier.waybill(token)
        own = [cargo for cargo in waybill.kept if request.folder and cargo.path.is_relative_to(request.folder)]
        found = [cargo for cargo in waybill.kept if cargo not in own]
        self._shelf.complete([*waybill.named, *found], functools.partial(courier.fetch, token))
        courier.fetch(token, [(cargo, self.of(cargo.path)) for cargo in own])
        for cargo in found:
            _linked(self._shelf.file(cargo), self.of(cargo.path))
        self._named = {cargo.path: self._shelf.file(cargo) for cargo in waybill.named}

    def local(self, request: Request) -> Request:
        """The request with local paths, in its lists of files as well."""
        lists = {field: self._list(getattr(request, field), field, request) for field in request.lists}
        return request.relocated(self).model_copy(update=lists)

    def spoken(self, outcome: Plain) -> Plain:
        """An outcome with the driver's paths in its texts."""
        names = {str(file): str(path) for path, file in self._named.items()}
        shelf, root = str(self._shelf.folder), str(self._root)

        def said(value: Plain) -> Plain:
            if isinstance(value, dict):
                return {key: said(one) for key, one in value.items()}
            if isinstance(value, list):
                return [said(one) for one in value]
            if not isinstance(value, str):
                return value
            for local, path in names.items() if shelf in value else ():
                value = value.replace(local, path)
            return value.replace(root, "")

        return said(outcome)

    def _list(self, given: ManifestFile, name: str, request: Request) -> ManifestFile:
        """A list of files, with local paths."""
        here = given.model_copy(update={"path": self.of(given.path)})
        return ManifestFile.write(self._root, name, here.read(request.lists[name]).relocated(self), self._root)


def _linked(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(file, target)


def _place() -> Path:
    """The folder for files on this node: it goes with the workers' guard, if there is one."""
    guarded = os.environ.get(PLACE)
    place = Path(guarded) / "files" if guarded else Path(tempfile.gettempdir()) / f"psiflow-files-{os.getuid()}"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


@contextmanager
def _folder(place: Path) -> Iterator[Path]:
    """A folder for a task. Those of workers that were killed are removed."""
    for left in place.glob("task-*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"task-{os.getpid()}-", dir=place, ignore_cleanup_errors=True) as root:
        yield Path(root)
