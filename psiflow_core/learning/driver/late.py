"""Outcomes whose files the driver does not see yet: a worker on another machine has just written them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from psiflow_core import files
from psiflow_core.execution.tasks.request import Outcome, Request
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.integrity import expected_files
from psiflow_core.learning.machine.state import State


class Late:
    """Such outcomes; after `files.LATE` seconds a missing file counts as lost."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Request, Outcome, float]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def takes(self, request: Request, outcome: Outcome) -> bool:
        """Whether an outcome has to wait; `over` returns it later."""
        if outcome.value is None or not request.is_late(outcome.value):
            return False
        self._waiting[outcome.key] = request, outcome, time.monotonic() + files.LATE
        return True

    def over(self) -> Iterator[Outcome]:
        """The outcomes whose wait is over; each is returned once."""
        for key, (request, outcome, until) in list(self._waiting.items()):
            if time.monotonic() > until or (outcome.value is not None and not request.is_late(outcome.value)):
                del self._waiting[key]
                yield outcome


def await_files(state: State, store: Store) -> None:
    """Wait for files of earlier sessions on a file system of several machines, at most `files.LATE` seconds."""
    until = time.monotonic() + files.LATE
    missing = [file for file in expected_files(state, store) if files.may_be_late(file)]
    while missing and time.monotonic() < until:
        time.sleep(1.0)
        missing = [file for file in missing if files.may_be_late(file)]
