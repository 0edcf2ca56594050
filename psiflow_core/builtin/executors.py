"""Executors for one machine: worker processes, and threads for debugging."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from psiflow_core.components import Executor, Pool, Resources
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Blocks, Processes, Scheduler

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor


class Local(Blocks):
    """Worker processes on this machine, over encrypted loopback connections."""

    name: ClassVar[str] = "local"

    def scheduler(self, pool: Pool) -> Scheduler:
        return Processes()


class Threads(Executor):
    """Threads of the driver's own process: for debugging, where a breakpoint has to be reached.

    A working directory belongs to a process: these tasks use the driver's, and print to its terminal. Two labels of a
    code that writes into its working directory would collide; worker processes use a folder for each task.
    """

    name: ClassVar[str] = "threads"

    workers: PositiveInt = 1
    """Threads."""
    cores_per_worker: PositiveInt = 1
    """Number of threads for the engine of one task."""

    def slots(self) -> int:
        return self.workers

    def resources(self) -> Resources:
        return Resources(self.cores_per_worker)

    def build(self, pool: Pool) -> ParslExecutor:
        from psiflow_core.execution.blocks._threads import DriverThreads

        if pool.isolated:
            raise OptionError(
                "executor 'threads' runs in the driver's own interpreter, and this work needs "
                f"{shlex.join(pool.python)}; use executor 'local'"
            )
        return DriverThreads(pool.label, self.workers)
