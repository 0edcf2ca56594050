"""The workers of a session: which tasks they can take, which hosts are excluded, and how many walkers share a task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from psiflow_core.execution.desk import GLANCE, Desk
from psiflow_core.execution.workers import Workers
from psiflow_core.learning.driver.log import Log
from psiflow_core.learning.driver.pools_file import PoolsFile
from psiflow_core.learning.driver.request import Campaign
from psiflow_core.learning.machine.planning import affordable
from psiflow_core.learning.machine.tasks import Task
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.sampling.batching import batch_size

IDLE = 1.0
"""How long to wait if no task is planned. [s]"""


class Supply:
    """The workers of one session."""

    def __init__(self, context: Workers, desk: Desk, log: Log, folder: Path) -> None:
        self._context = context
        self._desk = desk
        self._log = log
        self._file = PoolsFile(folder)
        self._excluded: frozenset[str] = frozenset()

    def affordable(self, tasks: Sequence[Task]) -> list[Task]:
        """The planned tasks for which there are free workers; the pools are told of the others.

        Raises:
            PoolFailed: there will be no workers for them.
        """
        now, later = affordable(tasks, self._context.capacity.pool_of, self._context.idle())
        self._desk.expect(later)
        for pool in later:
            if (failed := self._context.failed(pool)) is not None:
                raise failed
        return now

    def report(self) -> None:
        """Write the states of the pools for `psiflow status`."""
        self._file.keep(self._context.report())

    def reporting(self, show: Callable[[str], None]) -> Callable[[str], None]:
        """The same display, which writes the states of the pools as well."""

        def told(words: str) -> None:
            self.report()
            show(words)

        return told

    def wait(self) -> None:
        """Wait a moment for free workers, or for another campaign."""
        self._context.dispatch()
        time.sleep(GLANCE if self._desk.busy else IDLE)

    def exclude(self, hosts: Mapping[str, str]) -> None:
        """Send no more tasks to these hosts.

        Args:
            hosts: the last failure on each.
        """
        if hosts.keys() == self._excluded:
            return
        for host in hosts.keys() - self._excluded:
            self._log.excluded(host, hosts[host])
        self._excluded = frozenset(hosts)
        self._context.exclude(self._excluded)


def resolved(campaign: Campaign, context: Workers) -> Settings:
    """The settings, with the number of batched walkers chosen if it is left to psiflow."""
    settings = campaign.learning
    if settings.walking.segment.batch is not None:
        return settings
    device = context.resources("sample").device
    size = batch_size(max(len(structure) for structure in campaign.start), device)
    segment = settings.walking.segment.model_copy(update={"batch": size})
    walking = settings.walking.model_copy(update={"segment": segment})
    return settings.model_copy(update={"walking": walking})
