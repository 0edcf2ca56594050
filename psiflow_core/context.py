"""Where tasks run: pools of workers on Parsl. Nothing here knows what is computed."""

from __future__ import annotations

import itertools
import os
import queue
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, cast, get_args

from psiflow_core import guard
from psiflow_core.components import Component, Executor, Pool, Resources, Spec
from psiflow_core.errors import OptionError, WorkerLost
from psiflow_core.leases import end, read_verdict
from psiflow_core.plugins import as_spec, build
from psiflow_core.structures import Plain
from psiflow_core.tasks import failure, perform

if TYPE_CHECKING:
    from parsl.dataflow.dflow import DataFlowKernel
    from parsl.executors.base import ParslExecutor

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


@dataclass(frozen=True)
class _Started:
    """A pool that runs."""

    executor: ParslExecutor
    folder: Path
    number: int
    """How often it was started anew."""


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
        self._given_folder = None if folder is None else Path(folder)
        self._kernel: DataFlowKernel | None = None
        self._pools: dict[str, _Started] = {}
        self._folder = Path()
        self._own_folder: tempfile.TemporaryDirectory[str] | None = None
        self._tickets = itertools.count()
        self._ended: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
        self._running: dict[int, tuple[str, str]] = {}
        """By ticket: key and pool. A ticket is never used again, so that late outcomes are nobody's."""

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def capacity(self) -> Capacity:
        """Which pool serves which work, and how many tasks it runs at once."""
        slots = {name: executor.slots() for name, executor in self._executors.items()}
        return Capacity(dict(self._pool_of), slots)

    def resources(self, work: Work) -> Resources:
        """What one task of this kind may use."""
        return self._executors[self._pool_of[work]].resources()

    def describe(self) -> Plain:
        """Every pool's executor and options, for the journal."""
        return {name: spec.to_plain() for name, spec in self._specs.items()}

    def start(self) -> None:
        """Start the pools; the first task does it."""
        if self._kernel is not None:
            return
        from parsl.config import Config
        from parsl.dataflow.dflow import DataFlowKernel

        self._own_folder = tempfile.TemporaryDirectory(prefix="psiflow-", ignore_cleanup_errors=True)
        self._folder = Path(self._own_folder.name)
        if self._given_folder is not None:
            self._given_folder.mkdir(parents=True, exist_ok=True)
            self._folder = _harmless(self._given_folder.absolute(), self._folder)
        self._pools = {name: self._build(name) for name in self._executors}
        config = Config(
            executors=[pool.executor for pool in self._pools.values()],
            initialize_logging=False,
            run_dir=str(self._folder / "parsl"),
            strategy_period=0.5,
            exit_mode="skip",
            usage_tracking=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._kernel = DataFlowKernel(config)

    def submit(self, key: str, work: Work, kind: str, task: Plain) -> None:
        """Start a task; its outcome will come out of `completed` under its key.

        Args:
            work: which pool it goes to.
            kind: which function of `psiflow_core.tasks` it is.
        """
        self.start()
        pool = self._pool_of[work]
        if pool in dict(self._dead_pools()):
            self._replace(pool)
        resources = self._executors[pool].resources()._asdict()
        future: Future[Plain] = cast("DataFlowKernel", self._kernel).submit(
            perform,
            app_args=(kind, {**task, "resources": resources}),
            executors=[self._pools[pool].executor.label],
            cache=False,
            ignore_for_cache=None,
            app_kwargs={},
        )
        ticket, ended = next(self._tickets), self._ended
        self._running[ticket] = key, pool
        task_folder = task.get("folder")
        future.add_done_callback(lambda done: ended.put((ticket, _outcome(key, done, task_folder))))

    def completed(self, timeout: float = 1.0) -> Iterator[Outcome]:
        """The outcomes that are there, after waiting for the first one at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self._running:
            try:
                ticket, outcome = self._ended.get(timeout=max(0.0, min(1.0, deadline - time.monotonic())))
            except queue.Empty:
                yield from self._orphaned()
                if time.monotonic() >= deadline:
                    return
                continue
            if self._running.pop(ticket, None) is not None:
                yield outcome
            deadline = 0.0

    def run(self, work: Work, kind: str, task: Plain, timeout: float | None = None) -> Outcome:
        """Run one task and wait for it; for checks, not for campaigns.

        Raises:
            WorkerLost: no outcome within ``timeout`` seconds.
        """
        key = f"{kind}-{time.monotonic_ns()}"
        self.submit(key, work, kind, task)
        deadline = None if timeout is None else time.monotonic() + timeout
        while deadline is None or time.monotonic() < deadline:
            for outcome in self.completed():
                if outcome.key == key:
                    return outcome
        raise WorkerLost(f"no worker of pool '{self._pool_of[work]}' answered within {timeout:.0f} s")

    def close(self) -> None:
        """End every process that this context started."""
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        started = [process for pool in self._pools.values() for process in guard.guarding(pool.folder)]
        try:
            for pool, lost in self._dead_pools():
                self._pools[pool].executor.set_bad_state_and_fail_all(lost)
            kernel.cleanup()
        finally:
            end(started)
            self._running.clear()
            self._ended = queue.SimpleQueue()
            if self._own_folder is not None:
                self._own_folder.cleanup()

    def abandon(self) -> None:
        """End the pools if tasks are under way: whoever waited for them has left. The next task starts new ones."""
        if self._running:
            self.close()

    def _build(self, name: str) -> _Started:
        """A pool's executor, and the folder in which its guards know it."""
        again = self._pools[name].number + 1 if name in self._pools else 0
        label = f"{name}-{again}" if again else name
        folder = self._folder / f"{label}-{os.getpid()}"
        executor = self._executors[name].build(Pool(label, folder, sys.executable, os.getpid()))
        return _Started(executor, folder, again)

    def _replace(self, name: str) -> None:
        """Start a pool anew, of which the interchange has died."""
        dead, lost = self._pools[name], dict(self._dead_pools())[name]
        dead.executor.set_bad_state_and_fail_all(lost)
        end(guard.guarding(dead.folder))
        self._pools[name] = self._build(name)
        cast("DataFlowKernel", self._kernel).add_executors([self._pools[name].executor])

    def _orphaned(self) -> Iterator[Outcome]:
        """Tasks of a pool whose interchange has died: Parsl would wait for them for ever."""
        for pool, lost in self._dead_pools():
            for ticket in [ticket for ticket, (_, where) in self._running.items() if where == pool]:
                key, _ = self._running.pop(ticket)
                yield Outcome(key, None, failure(lost) | {"reason": "lost worker"})

    def _dead_pools(self) -> Iterator[tuple[str, WorkerLost]]:
        for pool, started in self._pools.items():
            process = getattr(started.executor, "interchange_proc", None)
            if process is not None and process.poll() is not None:
                code = process.returncode
                yield pool, WorkerLost(f"the interchange of pool '{pool}' has died (exit code {code})")


def _harmless(folder: Path, own: Path) -> Path:
    """The folder by a name that means nothing to a shell, which Parsl starts workers with: its own, or a link's."""
    if re.fullmatch(r"[\w@%+=:,./-]+", str(folder), re.ASCII):
        return folder
    link = own / "pools"
    link.symlink_to(folder, target_is_directory=True)
    return link


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


def _outcome(key: str, done: Future[Plain], folder: str | None) -> Outcome:
    error = done.exception()
    if error is None:
        plain = done.result()
        return Outcome(key, plain.get("value"), plain.get("failure"), plain["seconds"], plain["worker"])
    if type(error).__name__ not in LOST:
        return Outcome(key, None, failure(error))
    verdict = read_verdict(Path(folder)) if folder else None
    reason, message = verdict or ("lost worker", str(error))
    return Outcome(key, None, failure(error) | {"reason": reason, "message": message})
