"""Executors as a third party writes them: by the base class, and around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from psiflow_core.components import Executor, Pool, Resources
from psiflow_core.execution.blocks import Blocks, Provided, Scheduler

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor
    from parsl.providers.base import ExecutionProvider


class ToyBlocks(Blocks):
    """Worker processes on this machine, after lines of shell, under a command of one's own."""

    name: ClassVar[str] = "toy-blocks"

    before: str = ""
    """Lines of shell that run in a block before its workers start."""
    under: str = ""
    """A command to put before that of the workers, `unshare -m` for instance."""
    shared: bool = True
    """Whether the workers see the driver's files."""

    def shares_files(self) -> bool:
        return self.shared

    def scheduler(self, pool: Pool) -> Scheduler:
        from parsl.launchers import SimpleLauncher, WrappedLauncher
        from parsl.providers import LocalProvider

        launcher = WrappedLauncher(self.under) if self.under else SimpleLauncher()
        return Provided(LocalProvider(launcher=launcher, worker_init=self.before))


class ToyUnguarded(Executor):
    """What Parsl offers, as it comes: nobody sees to its processes."""

    name: ClassVar[str] = "toy-unguarded"

    def slots(self) -> int:
        return 1

    def resources(self) -> Resources:
        return Resources()

    def build(self, pool: Pool) -> ParslExecutor:
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        return HighThroughputExecutor(label=pool.label, provider=LocalProvider(), max_workers_per_node=1)


def provider() -> ExecutionProvider:
    """A provider of Parsl, as a site's file has one."""
    from parsl.providers import LocalProvider

    return LocalProvider()
