"""Hosts of workers, and the failures of machines on them: a bad host does not spend a task's attempts."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

from psiflow_core.execution.failures import OF_HOST, OF_HOST_TYPES

AT_ONCE = 3
"""Failures of the machine on a host, without a finished task between them, that exclude it."""


def host_of(worker: str) -> str:
    """The host of a worker, which is named `host:process`; empty if it is unknown."""
    return worker.rpartition(":")[0]


def of_host(type: str, reason: str) -> bool:
    """Whether a failure may be the fault of a host."""
    return reason in OF_HOST or type in OF_HOST_TYPES


class Hosts:
    """The hosts of a session, and which of them are excluded.

    A host is excluded after `AT_ONCE` failures of the machine without a finished task between them: of as many
    different tasks, or of one if other hosts do work. A task that then fails on another host as well is to blame
    itself. The driver's own host is never excluded: there is nothing better.

    Args:
        here: the driver's host.
    """

    def __init__(self, here: str) -> None:
        self._here = here
        self._working: set[str] = set()
        self._lost: dict[str, list[str]] = {}
        """By host: the tasks that failed there since a task has finished."""
        self._tried: dict[str, Counter[str]] = {}
        """By task: its failures on each host."""
        self._alone: dict[str, str] = {}
        """The hosts that are excluded for one task, by the task."""
        self._guilty: set[str] = set()
        """Tasks that fail wherever they run."""
        self.excluded: dict[str, str] = {}
        """The last failure on each excluded host, in words."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hosts) and vars(self) == vars(other)

    def finished(self, host: str) -> None:
        """A task has finished on a host."""
        if host:
            self._working.add(host)
            self._lost.pop(host, None)

    def failed(self, task: str, host: str, words: str) -> bool:
        """A task has failed by a fault of the machine; returns whether the host is excluded for it."""
        if not host:
            return False
        tried = self._tried.setdefault(task, Counter())
        tried[host] += 1
        if self._alone.get(task, host) != host:
            self._guilty.add(task)
        if len(tried) > 1 or host == self._here or host in self.excluded:
            return False
        lost = self._lost.setdefault(host, [])
        lost.append(task)
        if len(lost) < AT_ONCE or (len(set(lost)) < AT_ONCE and not self._others(host)):
            return False
        self.excluded[host] = words
        if set(lost) == {task}:
            self._alone[task] = host
        return True

    def after(self, task: str, host: str, words: str) -> Hosts:
        """As if a task had failed by a fault of the machine."""
        then = deepcopy(self)
        then.failed(task, host, words)
        return then

    def is_remote(self, host: str) -> bool:
        """Whether a host is known, and is not the driver's."""
        return host not in ("", self._here)

    def refunded(self, task: str) -> int:
        """The failures of a task that spend no attempt: on an excluded host all of them count as one."""
        if task in self._guilty:
            return 0
        tried = self._tried.get(task, Counter())
        return sum(count - 1 for host, count in tried.items() if host in self.excluded)

    def _others(self, host: str) -> set[str]:
        """Other hosts that work."""
        return self._working - self.excluded.keys() - {host}
