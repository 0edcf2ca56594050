"""Workers: the pool of each kind of work, and the outcome of each task, independent of the content of tasks."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from psiflow_core import answers
from psiflow_core.components import Component, Executor, Resources, Spec
from psiflow_core.environments.environment import Environment, choose, elsewhere
from psiflow_core.errors import PoolFailed, WorkerLost
from psiflow_core.execution.backlog import Backlog, Parcel
from psiflow_core.execution.blocks import PoolReport
from psiflow_core.execution.blocks.places import place_of_lost
from psiflow_core.execution.desk import Desk
from psiflow_core.execution.endings import Loss
from psiflow_core.execution.hosts import AT_ONCE
from psiflow_core.execution.pools import Key, Pools
from psiflow_core.execution.sender import Sender
from psiflow_core.execution.sharing import Capacity, shared
from psiflow_core.execution.tasks.request import Grant, Outcome, Request, Work
from psiflow_core.registry.plugins import build
from psiflow_core.structures import Plain


class Workers:
    """Pools of workers, one for each kind of work or shared; several clients may use them, each at its own `desk`.

    It is safe to use from several threads.

    Raises:
        OptionError: an argument is not an executor.
        PluginNotFound: there is no executor of that name.
    """

    def __init__(
        self,
        everything: Spec | Component | str = "local",
        /,
        *,
        train: Spec | Component | str | None = None,
        sample: Spec | Component | str | None = None,
        label: Spec | Component | str | None = None,
        folder: str | Path | None = None,
    ) -> None:
        given = {"train": train, "sample": sample, "label": label}
        self._specs, self._pool_of = shared(everything, given)
        self._executors = {name: cast(Executor, build(spec)) for name, spec in self._specs.items()}
        self._pools = Pools(self._executors, None if folder is None else Path(folder))
        self.lock = threading.RLock()
        """Protects pools and desks: clients may be in several threads."""
        self._desks: weakref.WeakSet[Desk] = weakref.WeakSet()
        self._chosen: dict[tuple[str, ...], Environment] = {}
        """Environments by the needed components."""
        self._backlogs: dict[Key, Backlog] = {}
        self._resources: dict[str, Resources] = {}
        """By pool; executors do not change."""
        self._sender = Sender(self.dispatch)
        self._pools.watch(self._sender.news)
        self._excluded: set[str] = set()
        """Hosts that get no more tasks."""
        self._shunned: dict[Key, set[str]] = {}
        """The blocks of each pool that were on excluded hosts, since it has had others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def capacity(self) -> Capacity:
        """The pool of each kind of work, and its number of simultaneous tasks."""
        slots = {
            name: answers.slots(executor, answers.named(self._specs[name]))
            for name, executor in self._executors.items()
        }
        return Capacity(dict(self._pool_of), slots)

    def resources(self, work: Work) -> Resources:
        """The limits of one task of this kind."""
        pool = self._pool_of[work]
        if pool not in self._resources:
            self._resources[pool] = answers.resources(self._executors[pool], answers.named(self._specs[pool]))
        return self._resources[pool]

    def describe(self) -> Plain:
        """Every pool's executor and options, for the journal."""
        return {name: spec.to_plain() for name, spec in self._specs.items()}

    def idle(self) -> dict[str, int]:
        """Number of tasks that would begin at once, by pool. All workers of a pool that has not been started count."""
        with self.lock:
            free = {key: self._pools.free(key) - len(self._backlog(key)) for key in self._pools.started}
            slots = self.capacity.slots
        by_name = {name: [count for (pool, _), count in free.items() if pool == name] for name in slots}
        return {name: sum(max(0, n) for n in counts) if counts else slots[name] for name, counts in by_name.items()}

    def start(self, needs: Sequence[tuple[Work, Sequence[Spec]]]) -> None:
        """Start pools for these kinds of work and components; other pools start with their first task.

        Raises:
            PluginNotFound: no environment has the components of a kind of work.
            EnvironmentUnfit: the environment does not fit this interpreter, or has changed since it was recorded.
        """
        with self.lock:
            self._pools.start([(self._pool_of[work], self._choose(components)) for work, components in needs])

    def desk(self) -> Desk:
        """A new desk: it submits tasks, and receives the outcomes of its own tasks only."""
        desk = Desk(self)
        with self.lock:
            self._desks.add(desk)
        return desk

    def run(self, request: Request, timeout: float | None = None, tell: Callable[[str], None] | None = None) -> Outcome:
        """Run one task and wait for it.

        Args:
            timeout: how long to wait at most [s]; None waits to the end.
            tell: called with a text while no workers are available.

        Raises:
            WorkerLost: no outcome within ``timeout`` seconds.
            PoolFailed: the workers do not start.
        """
        desk = self.desk()
        desk.submit(request.kind, request)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while deadline is None or time.monotonic() < deadline:
                for outcome in desk.completed():
                    return outcome
                waiting = self.waiting()
                if tell is not None and waiting:
                    tell(waiting)
            words = f"no worker of pool '{self._pool_of[request.pool]}' answered within {timeout:.0f} s"
            raise WorkerLost(f"{words}: {waiting}" if (waiting := self.waiting()) else words)
        finally:
            desk.abandon()

    def waiting(self) -> str:
        """Pools without workers while tasks wait, with the states of their blocks and excluded hosts; else empty."""
        waiting = self._pools.waiting()
        excluded = f"; excluded hosts: {', '.join(sorted(self._excluded))}" if self._excluded else ""
        return waiting and waiting + excluded

    def report(self) -> tuple[PoolReport, ...]:
        """The states of all started pools."""
        with self.lock:
            return self._pools.report()

    def failed(self, pool: str) -> PoolFailed | None:
        """Why no task of a pool can begin any more; None if that is not so."""
        with self.lock:
            found = [self._failed(key) for key in self._pools.started if key[0] == pool]
        return next(filter(None, found), None)

    def close(self) -> None:
        """End all started processes."""
        with self.lock:
            for desk in list(self._desks):
                desk.forget()
            self._close()

    def accept(self, parcel: Parcel, first: bool) -> None:
        """Let a task of a desk wait for a free worker, before all others or after them; see `Desk.submit`."""
        request = parcel.request
        with self.lock:
            self.start([(request.pool, request.needs)])
            environment = self._choose(request.needs)
            key = self._pool_of[request.pool], environment.name
            self._pools.try_again(key)
            self._shut_out(key)
            elsewhere(request.asks, environment)  # an unknown potential is told at once
            self._sender.start()
            self._backlog(key).add(parcel, first)
            self._dispatch(key)

    def dispatch(self) -> None:
        """Send the waiting tasks for which there are free workers, and tell the pools the demand."""
        with self.lock:
            for key in list(self._pools.started):
                self._dispatch(key)

    def withdraw(self, desk: Desk, tickets: Collection[int]) -> None:
        """Drop tasks of a desk that wait."""
        with self.lock:
            for backlog in self._backlogs.values():
                backlog.withdraw(desk, tickets)

    def loss(self, pool: Key, error: BaseException, patient: bool) -> Loss | None:
        """What is known of the machine of a lost task; it may ask a scheduler, which takes seconds.

        Returns:
            None, with `patient`, if a node is lost whose block has not ended for the scheduler yet: batch systems take
            minutes to notice that a node has failed.
        """
        place = place_of_lost(error)
        if place is None or pool not in self._pools.started:
            return Loss()
        if self._pools.interrupted(pool, place.block):
            return Loss(place.host, interrupted=True)
        node = type(error).__name__ == "ManagerLost"
        return None if patient and node and self._pools.has(pool, place.block) else Loss(place.host)

    def hold(self, pool: Key, manager: str) -> None:
        """Send no more tasks to the workers of this manager: their block ends."""
        with self.lock:
            if pool in self._pools.started and manager:
                self._pools.hold(pool, manager)

    def exclude(self, hosts: Collection[str]) -> None:
        """Send no more tasks to these hosts, in any pool."""
        with self.lock:
            self._excluded |= set(hosts)
            for key in self._pools.started:
                self._shut_out(key)

    def readmit(self, hosts: Collection[str]) -> None:
        """Send tasks to these hosts again. Running pools do not: they are ended, unless they have tasks."""
        with self.lock:
            if self._excluded.intersection(hosts):
                self._excluded -= set(hosts)
                self.end_idle()

    def end_idle(self) -> None:
        """End all started processes, unless tasks are running; the next task starts new ones."""
        with self.lock:
            if not any(desk.busy for desk in self._desks):
                self._close()

    def _close(self) -> None:
        self._sender.stop()
        self._pools.close()
        self._backlogs.clear()

    def _shut_out(self, key: Key) -> None:
        for host in self._excluded:
            self._pools.exclude(key, host)

    def _backlog(self, key: Key) -> Backlog:
        if key not in self._backlogs:
            self._backlogs[key] = Backlog()
        return self._backlogs[key]

    def _dispatch(self, key: Key) -> None:
        backlog, expected = self._backlog(key), sum(desk.expected[key[0]] for desk in self._desks)
        failed = self._failed(key)
        if failed is not None:
            backlog.refuse(failed)
            return
        if backlog or expected:
            self._pools.revive(key)
            for parcel in backlog.take(self._pools.free(key)):
                future = self._pools.submit(key, parcel.request, self._grant(key, parcel))
                future.add_done_callback(backlog.ended)
                future.add_done_callback(lambda _: self._sender.news())
                parcel.client.sent(parcel.ticket, key, self._pools.started[key], future)
        self._pools.want(key, backlog.sent + len(backlog) + expected)

    def _failed(self, key: Key) -> PoolFailed | None:
        """Why no task of a pool can begin: its workers do not start, or are on excluded hosts again and again."""
        failed = self._pools.started[key].failed()
        if failed is not None or not self._excluded:
            return failed
        report = self._pools.report_of(key)
        if report.workers:
            self._shunned.pop(key, None)
        shunned = self._shunned.setdefault(key, set())
        shunned |= {one.block for one in report.blocks if one.hosts and self._excluded.issuperset(one.hosts)}
        if len(shunned) < AT_ONCE:
            return None
        return PoolFailed(
            f"the last {len(shunned)} blocks of pool '{report.pool}' were on excluded hosts, where tasks failed one "
            f"after the other: {', '.join(sorted(self._excluded))}. Repair these hosts, or ask the scheduler for others"
        )

    def _grant(self, key: Key, parcel: Parcel) -> Grant:
        request = parcel.request
        return Grant(
            resources=self.resources(request.pool),
            takes=0.0 if request.stops else max(parcel.takes, parcel.client.takes(request.kind)),
            homes=elsewhere(request.asks, self._pools.started[key].environment),
        )

    def _choose(self, needs: Sequence[Spec]) -> Environment:
        key = tuple(spec.digest for spec in needs)
        if key not in self._chosen:
            self._chosen[key] = choose(needs)
        return self._chosen[key]
