"""A desk: where one client of workers submits tasks, and receives their outcomes."""

from __future__ import annotations

import itertools
import queue
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psiflow_core.errors import PoolFailed
from psiflow_core.execution.backlog import Parcel
from psiflow_core.execution.endings import Answer, answer_of, answered, gone, lost
from psiflow_core.execution.failures import UNFINISHED, failure
from psiflow_core.execution.pools import Key, Started
from psiflow_core.execution.tasks.request import Outcome, Request

if TYPE_CHECKING:
    from psiflow_core.execution.workers import Workers

GLANCE = 0.2
"""How often a desk with waiting tasks looks for free workers. [s]"""

LOOK = 1.0
"""How often it looks for dead pools. [s]"""

SETTLING = 60.0
"""How long a scheduler's word on a lost block is waited for. [s]"""


@dataclass(slots=True)
class Task:
    """A task of a desk."""

    key: str
    request: Request
    place: tuple[Key, Started] | None = None
    """Where it was sent; None while it waits for a free worker."""


class Desk:
    """One client of workers; it receives the outcomes of its own tasks."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._tickets = itertools.count()
        self._ended: queue.SimpleQueue[tuple[int, Answer] | None] = queue.SimpleQueue()
        self._tasks: dict[int, Task] = {}
        """By ticket. A ticket is never reused, so that late outcomes are ignored."""
        self._waiting: set[int] = set()
        """Tasks that wait for a free worker."""
        self._used: dict[int, Started] = {}
        """The pools of its tasks."""
        self._lost: dict[int, tuple[BaseException, float]] = {}
        """Tasks whose worker was lost while the reason is not known yet: the error, and until when to ask."""
        self._longest: Counter[str] = Counter()
        """The longest time that a finished task took, by its kind. [s]"""
        self.expected: Counter[str] = Counter()
        """By pool: the tasks that will be submitted once there are free workers."""

    @property
    def busy(self) -> bool:
        """Whether tasks are running, waiting or expected."""
        return bool(self._tasks) or self.expected.total() > 0

    @property
    def empty(self) -> bool:
        """Whether no task is running or waiting."""
        return not self._tasks

    @property
    def under_way(self) -> int:
        """Number of tasks that workers have, or that are on their way to them."""
        return len(self._tasks) - len(self._waiting)

    def submit(self, key: str, request: Request, first: bool = False, takes: float = 0.0) -> None:
        """Start a task as soon as a worker is free; `completed` yields its outcome under its key.

        Args:
            first: before all other tasks that wait.
            takes: how long such a task takes, as far as it is known from elsewhere than this desk: a block that ends
                before does not begin it. [s]

        Raises:
            PluginNotFound, EnvironmentUnfit: as `Workers.start`.
        """
        ticket = next(self._tickets)
        with self._workers.lock:  # no other client may end the pools in between
            self._tasks[ticket] = Task(key, request)
            self._waiting.add(ticket)
            try:
                self._workers.accept(Parcel(request, takes, self, ticket), first)
            except BaseException:
                self._drop(ticket)
                raise

    def takes(self, kind: str) -> float:
        """How long a task of this kind took at most; 0 if none has finished. [s]"""
        return float(self._longest[kind])

    def sent(self, ticket: int, pool: Key, started: Started, future: Future[str]) -> None:
        """A task was sent; called under the lock of `Workers`."""
        ended = self._ended
        self._tasks[ticket].place = pool, started
        self._used[id(started)] = started
        self._waiting.discard(ticket)
        future.add_done_callback(lambda done: ended.put((ticket, answer_of(done))))

    def refused(self, ticket: int, error: PoolFailed) -> None:
        """The workers of a task do not start; called under the lock of `Workers`."""
        self._ended.put((ticket, error))

    def expect(self, tasks: Mapping[str, int]) -> None:
        """Tell the pools how many tasks will follow once there are free workers."""
        self.expected = Counter(tasks)

    def completed(self, timeout: float = LOOK) -> Iterator[Outcome]:
        """The available outcomes, after waiting for the first one at most ``timeout`` seconds.

        Raises:
            PoolFailed: the workers of a task do not start.
        """
        for _, ended in self.ended(timeout):
            if isinstance(ended, PoolFailed):
                raise ended
            yield ended

    def ended(self, timeout: float = LOOK) -> Iterator[tuple[str, Outcome | PoolFailed]]:
        """As `completed`, with the key of each task; with a `PoolFailed` if its workers do not start."""
        deadline = time.monotonic() + timeout
        while self._tasks:
            if self._ended.empty():
                self._workers.dispatch()
            longest = GLANCE if self._lost or self._waiting else LOOK
            try:
                arrived = self._ended.get(timeout=max(0.0, min(longest, deadline - time.monotonic())))
            except queue.Empty:
                found = [*self._orphaned(), *self._settled()]
                yield from found
                if found or time.monotonic() >= deadline:
                    return
                continue
            if arrived is None:  # `wake`
                return
            received = list(self._received(*arrived))
            yield from received
            deadline = 0.0 if received else deadline

    def wake(self) -> None:
        """End a wait for outcomes in another thread."""
        self._ended.put(None)

    def withdraw(self) -> None:
        """Drop the tasks that wait for a free worker."""
        with self._workers.lock:
            waiting = list(self._waiting)
            self._workers.withdraw(self, set(waiting))
            self.expected.clear()
        for ticket in waiting:
            self._drop(ticket)

    def forget(self) -> None:
        """Drop all tasks, and ignore their outcomes."""
        self.withdraw()
        self._tasks.clear()
        self._lost.clear()
        self._ended = queue.SimpleQueue()

    def abandon(self) -> None:
        """Drop the tasks, and end the pools unless another client uses them."""
        if self.busy:
            self.forget()
            self._workers.end_idle()

    def _received(self, ticket: int, done: Answer) -> Iterator[tuple[str, Outcome | PoolFailed]]:
        """The outcome of a task; none yet if its worker was lost, and the scheduler has not said why."""
        task = self._tasks.get(ticket)
        if task is None:
            return
        if isinstance(done, PoolFailed):
            yield self._drop(ticket), done
            return
        assert task.place is not None
        pool, started = task.place
        if (failed := started.failed()) is not None:
            yield self._drop(ticket), failed
        elif (error := lost(done)) is not None:
            self._lost[ticket] = error, time.monotonic() + SETTLING
            yield from self._settled()
        else:
            outcome = answered(task.key, task.request, done)
            if outcome.failure is not None and outcome.failure.reason == UNFINISHED:
                self._workers.hold(pool, outcome.manager)
            if outcome.value is not None:
                kind = task.request.kind
                self._longest[kind] = max(self._longest[kind], outcome.seconds)  # type: ignore[assignment]
            yield self._drop(ticket), outcome

    def _settled(self) -> Iterator[tuple[str, Outcome]]:
        """The tasks whose worker was lost, once the reason is known."""
        for ticket, (error, until) in list(self._lost.items()):
            task = self._tasks[ticket]
            assert task.place is not None
            loss = self._workers.loss(task.place[0], error, patient=time.monotonic() < until)
            if loss is not None:
                yield self._drop(ticket), gone(task.key, task.request, error, loss)

    def _orphaned(self) -> Iterator[tuple[str, Outcome]]:
        """The tasks of pools whose interchange has died: Parsl would wait for them for ever."""
        died = {number: error for number, pool in self._used.items() if (error := pool.dead()) is not None}
        for ticket, task in list(self._tasks.items()) if died else ():
            if task.place is not None and id(task.place[1]) in died:
                error = died[id(task.place[1])]
                yield self._drop(ticket), Outcome(task.key, None, failure(error, reason="lost worker"))

    def _drop(self, ticket: int) -> str:
        """Forget a task; returns its key."""
        self._waiting.discard(ticket)
        self._lost.pop(ticket, None)
        return self._tasks.pop(ticket).key
