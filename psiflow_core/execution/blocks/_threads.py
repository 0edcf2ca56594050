"""Threads of the driver as a pool."""

from __future__ import annotations

from collections.abc import Callable

from parsl.executors import ThreadPoolExecutor

from psiflow_core.execution.blocks.report import PoolReport


class DriverThreads(ThreadPoolExecutor):
    """Parsl's threads, which answer the questions that `WorkerProcesses` answers."""

    def __init__(self, label: str, threads: int) -> None:
        super().__init__(label=label, max_threads=threads)
        self._size = threads

    def watch(self, changed: Callable[[], None]) -> None:
        """Threads are always there."""

    def want(self, tasks: int) -> None:
        """Threads are always there."""

    def free(self, sent: int) -> int:
        """Threads without a task, if so many tasks were sent and have not ended; negative if these are more."""
        return self._size - sent

    def hold(self, manager: str) -> None:
        """Threads have no manager."""

    def exclude(self, host: str) -> None:
        """The driver's own host cannot be excluded."""

    def interrupted(self, block: str) -> bool:
        return False

    def report(self, sent: int = 0) -> PoolReport:
        return PoolReport(self.label, sent, self._size, sent)

    def waiting(self) -> str:
        return ""

    def end(self) -> None:
        """Threads end with the driver."""
