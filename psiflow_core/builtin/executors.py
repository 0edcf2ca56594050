"""Executors for one machine: worker processes, and threads for debugging."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from psiflow_core.blocks import Blocks
from psiflow_core.components import Executor, Pool, Resources
from psiflow_core.errors import OptionError

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor
    from parsl.providers.base import ExecutionProvider


class Local(Blocks):
    """Worker processes on this machine, over encrypted loopback connections."""

    name: ClassVar[str] = "local"

    def provider(self) -> ExecutionProvider:
        from parsl.launchers import SimpleLauncher
        from parsl.providers import LocalProvider

        return LocalProvider(launcher=SimpleLauncher())


class Threads(Executor):
    """Threads of the driver's own process: for debugging, where a breakpoint has to be reached.

    A working directory belongs to a process: tasks work in the driver's here, and print to its terminal. Two labels of
    a code that writes into its working directory would meet in it; worker processes work in a folder for each task.
    """

    name: ClassVar[str] = "threads"

    workers: PositiveInt = 1
    """Threads."""
    cores_per_worker: PositiveInt = 1
    """Threads that one task's engine may use."""

    def slots(self) -> int:
        return self.workers

    def resources(self) -> Resources:
        return Resources(self.cores_per_worker)

    def build(self, pool: Pool) -> ParslExecutor:
        from parsl.executors import ThreadPoolExecutor

        if pool.isolated:
            raise OptionError(
                "executor 'threads' runs in the driver's own interpreter, and this work needs "
                f"{shlex.join(pool.python)}; use executor 'local'"
            )
        return ThreadPoolExecutor(label=pool.label, max_threads=self.workers)
