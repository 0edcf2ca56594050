"""An empty task: for `psiflow doctor`, and for measuring the cost of a task."""

from __future__ import annotations

from typing import ClassVar

from psiflow_core.execution.tasks.request import Grant, Request, Result, Work


class Idled(Result):
    cores: int
    """Threads that the worker has for a task."""


class IdleRequest(Request):
    """Do nothing."""

    kind: ClassVar[str] = "idle"
    work: ClassVar[Work] = "label"
    result: ClassVar[type[Result]] = Idled

    def run(self, grant: Grant) -> Idled:
        return Idled(cores=grant.resources.cores)
