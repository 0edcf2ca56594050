"""The managers of a pool, as its interchange sees them: who takes tasks, and how many."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from psiflow_core.execution.blocks.places import place_of


@dataclass(frozen=True)
class Manager:
    """The process that starts the workers of one node."""

    name: str
    block: str
    host: str
    workers: int
    tasks: int
    idle: float
    """[s]"""
    active: bool
    """Whether the interchange sends it tasks."""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """From an answer of Parsl's interchange."""
        place = place_of(told["manager"])
        active = bool(told["active"]) and not told["draining"]
        host = place.host if place else ""
        sizes = int(told["worker_count"]), int(told["tasks"]), float(told["idle_duration"])
        return cls(told["manager"], str(told["block_id"]), host, *sizes, active)


class Crew:
    """The managers that are present. All methods may be called from several threads.

    What is asked often is counted once after each change: there may be a thousand managers.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._present: dict[str, Manager] = {}
        self._held: set[str] = set()
        self._excluded: set[str] = set()
        self._by_block: dict[str, list[Manager]] = {}
        self._taking: set[str] = set()
        self._workers = self._spent = 0
        self.answered: set[str] = set()
        """Blocks with a manager that was present at any time."""

    def see(self, managers: Iterable[Manager]) -> bool:
        """Take note of the present managers; returns whether more workers take tasks than before."""
        with self._lock:
            before = self._workers
            self._present = {one.name: one for one in managers}
            self._held &= self._present.keys()
            self.answered |= {one.block for one in self._present.values()}
            self._count()
            return self._workers > before

    def hold(self, manager: str) -> None:
        """Count no more on a manager."""
        with self._lock:
            self._held.add(manager)
            self._count()

    def exclude(self, host: str) -> None:
        """Count no more on a host."""
        with self._lock:
            self._excluded.add(host)
            self._count()

    @property
    def excluded(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._excluded))

    def unwanted(self) -> list[str]:
        """Managers that the interchange has to hold."""
        with self._lock:
            return [one.name for one in self._present.values() if one.active and one.name not in self._taking]

    def workers(self) -> int:
        """Workers that take tasks."""
        return self._workers

    def spent(self) -> int:
        """Tasks of managers that take no more."""
        return self._spent

    def free(self, outstanding: int) -> int:
        """Workers without a task, if so many tasks were sent and have not ended; negative if these are more."""
        with self._lock:
            return self._workers - max(0, outstanding - self._spent)

    def of(self, block: str) -> list[Manager]:
        """The managers of a block that are present."""
        with self._lock:
            return list(self._by_block.get(block, ()))

    def workers_of(self, block: str) -> int:
        """The workers of a block that take tasks."""
        with self._lock:
            return sum(one.workers for one in self._by_block.get(block, ()) if one.name in self._taking)

    def _count(self) -> None:
        present = self._present.values()
        taking = [one for one in present if one.active and one.name not in self._held]
        self._taking = {one.name for one in taking if one.host not in self._excluded}
        self._workers = sum(one.workers for one in present if one.name in self._taking)
        self._spent = sum(one.tasks for one in present if one.name not in self._taking)
        self._by_block = {}
        for one in present:
            self._by_block.setdefault(one.block, []).append(one)
