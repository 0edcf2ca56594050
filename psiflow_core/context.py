"""Where tasks run: which pool does which work, and how each task ended. Nothing here knows what is computed."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, cast, get_args

from psiflow_core import answers
from psiflow_core.catalogue import as_spec
from psiflow_core.components import Component, Executor, Resources, Spec
from psiflow_core.environments import Environment, choose, elsewhere
from psiflow_core.errors import OptionError, WorkerLost
from psiflow_core.leases import read_verdict
from psiflow_core.plugins import build
from psiflow_core.pools import Key, Pools
from psiflow_core.structures import Plain
from psiflow_core.tasks import failure

Work = Literal["train", "sample", "label"]
"""The kinds of work that may have a pool each."""


LOST = {"WorkerLost", "ManagerLost", "BadStateException", "TooManyJobFailuresError", "Again"}
"""What Parsl, and its messages, call it when the machine, and not the task, is to blame."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a value or with a failure, both plain data."""

    key: str
    value: Plain | None
    failure: Plain | None
    seconds: float = 0.0
    """Wall time on the worker."""
    worker: str = ""
    """Host and process."""


@dataclass(frozen=True)
class Capacity:
    """What can run at once: which pool serves a kind of work, and how many tasks a pool takes."""

    pool_of: dict[str, str]
    slots: dict[str, int]


class Context:
    """Pools of workers, one for each kind of work or shared.

    ``Context()`` is this machine. ``Context(psiflow.executor("local", workers=4))`` is one pool for everything;
    ``Context(train=…, sample=…, label=…)`` gives a kind of work its own. The same spec object given twice is
    one shared pool. Use it as a context manager: leaving it ends every process that it started.

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
        self._specs, self._pool_of = _share(everything, given)
        self._executors = {name: cast(Executor, build(spec)) for name, spec in self._specs.items()}
        self._pools = Pools(self._executors, None if folder is None else Path(folder))
        self._tickets = itertools.count()
        self._ended: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
        self._running: dict[int, tuple[str, Key]] = {}
        """By ticket: key, and pool with environment. A ticket is never used twice: late outcomes are nobody's."""
        self._chosen: dict[tuple[str, ...], Environment] = {}
        """By what is needed."""

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def capacity(self) -> Capacity:
        """Which pool serves which work, and how many tasks it runs at once."""
        slots = {
            name: answers.slots(executor, answers.named(self._specs[name]))
            for name, executor in self._executors.items()
        }
        return Capacity(dict(self._pool_of), slots)

    def resources(self, work: Work) -> Resources:
        """What one task of this kind may use."""
        pool = self._pool_of[work]
        return answers.resources(self._executors[pool], answers.named(self._specs[pool]))

    def describe(self) -> Plain:
        """Every pool's executor and options, for the journal."""
        return {name: spec.to_plain() for name, spec in self._specs.items()}

    def start(self, needs: Sequence[tuple[Work, Sequence[Spec]]]) -> None:
        """Start workers for these kinds of work and components; what is not started here, the first task starts.

        Raises:
            PluginNotFound: no environment has what a kind of work needs.
            EnvironmentUnfit: the one that has it disagrees with this interpreter, or is not as it was recorded.
        """
        self._pools.start([(self._pool_of[work], self._choose(components)) for work, components in needs])

    def submit(
        self,
        key: str,
        work: Work,
        kind: str,
        task: Plain,
        needs: Sequence[Spec] = (),
        asks: Sequence[Spec] = (),
    ) -> None:
        """Start a task; its outcome will come out of `completed` under its key.

        Args:
            work: which pool it goes to.
            kind: which function of `psiflow_core.tasks` it is.
            needs: components that its worker has to have; they choose its environment.
            asks: potentials that it asks for predictions, in other environments where it has to be.

        Raises:
            PluginNotFound, EnvironmentUnfit: as `start`.
        """
        self.start([(work, needs)])
        environment = self._choose(needs)
        pool = self._pool_of[work], environment.name
        told = {**task, "resources": self.resources(work)._asdict(), "homes": elsewhere(asks, environment)}
        future = self._pools.submit(pool, kind, told)
        ticket, ended = next(self._tickets), self._ended
        self._running[ticket] = key, pool
        task_folder, ran = task.get("folder"), " with ".join(map(answers.named, needs)) or kind
        future.add_done_callback(lambda done: ended.put((ticket, _outcome(key, done, task_folder, ran))))

    def completed(self, timeout: float = 1.0) -> Iterator[Outcome]:
        """The outcomes that are there, after waiting for the first one at most ``timeout`` seconds.

        Raises:
            PoolFailed: the workers of a task do not start.
        """
        deadline = time.monotonic() + timeout
        while self._running:
            try:
                ticket, outcome = self._ended.get(timeout=max(0.0, min(1.0, deadline - time.monotonic())))
            except queue.Empty:
                yield from self._orphaned()
                if time.monotonic() >= deadline:
                    return
                continue
            _, pool = self._running.pop(ticket, ("", None))
            if pool is not None:
                self._refuse_failed(pool)
                yield outcome
            deadline = 0.0

    def waiting(self) -> str:
        """Which workers tasks wait for that have never answered, and what has come of their blocks; else empty."""
        return self._pools.waiting()

    def run(
        self,
        work: Work,
        kind: str,
        task: Plain,
        timeout: float | None = None,
        needs: Sequence[Spec] = (),
        tell: Callable[[str], None] | None = None,
    ) -> Outcome:
        """Run one task and wait for it; for checks, not for campaigns.

        Args:
            tell: is told what workers are waited for, while there are none.

        Raises:
            WorkerLost: no outcome within ``timeout`` seconds.
            PoolFailed: the workers do not start.
        """
        key = f"{kind}-{time.monotonic_ns()}"
        self.submit(key, work, kind, task, needs)
        deadline = None if timeout is None else time.monotonic() + timeout
        while deadline is None or time.monotonic() < deadline:
            for outcome in self.completed():
                if outcome.key == key:
                    return outcome
            waiting = self.waiting()
            if tell is not None and waiting:
                tell(waiting)
        words = f"no worker of pool '{self._pool_of[work]}' answered within {timeout:.0f} s"
        raise WorkerLost(f"{words}: {waiting}" if (waiting := self.waiting()) else words)

    def close(self) -> None:
        """End every process that this context started."""
        try:
            self._pools.close()
        finally:
            self._running.clear()
            self._ended = queue.SimpleQueue()

    def abandon(self) -> None:
        """End the pools if tasks are under way: whoever waited for them has left. The next task starts new ones."""
        if self._running:
            self.close()

    def _choose(self, needs: Sequence[Spec]) -> Environment:
        key = tuple(spec.digest for spec in needs)
        if key not in self._chosen:
            self._chosen[key] = choose(needs)
        return self._chosen[key]

    def _refuse_failed(self, pool: Key) -> None:
        """Raise what a pool said when it gave up: that is not the failure of one task."""
        failed = self._pools.failed(pool)
        if failed is not None:
            raise failed

    def _orphaned(self) -> Iterator[Outcome]:
        """Tasks of a pool whose interchange has died: Parsl would wait for them for ever."""
        for pool, lost in self._pools.dead():
            for ticket in [ticket for ticket, (_, where) in self._running.items() if where == pool]:
                key, _ = self._running.pop(ticket)
                yield Outcome(key, None, failure(lost, reason="lost worker"))


def _share(
    everything: Spec | Component | str, given: dict[str, Spec | Component | str | None]
) -> tuple[dict[str, Spec], dict[str, str]]:
    """Name the pools: what is given by the same object is one."""
    specs: dict[str, Spec] = {}
    pool_of: dict[str, str] = {}
    names: dict[int, str] = {}
    for work in get_args(Work):
        wanted = given[work] if given[work] is not None else everything
        assert wanted is not None
        if id(wanted) not in names:
            users = [other for other in get_args(Work) if (given[other] or everything) is wanted]
            names[id(wanted)] = "-".join(users) if len(users) < len(given) else "all"
            spec = as_spec("executor", wanted)
            if spec.kind != "executor":
                raise OptionError(f"Context({work}=…) takes an executor, not a {spec.kind} ('{spec.name}')")
            specs[names[id(wanted)]] = spec
        pool_of[work] = names[id(wanted)]
    return specs, pool_of


def _outcome(key: str, done: Future[Plain], folder: str | None, ran: str) -> Outcome:
    error = done.exception()
    if error is None:
        plain = done.result()
        return Outcome(key, plain.get("value"), plain.get("failure"), plain["seconds"], plain["worker"])
    if type(error).__name__ not in LOST:
        return Outcome(key, None, failure(error, folder))
    verdict = read_verdict(Path(folder)) if folder else None
    lost = f"{error}; it ran {ran}, which may have ended it"
    reason, message = verdict or ("lost worker", lost)
    return Outcome(key, None, failure(error, folder, reason=reason, message=message))
