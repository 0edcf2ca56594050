"""Pools of workers on Parsl: their start, restart and end. The only module that uses Parsl's kernel."""

from __future__ import annotations

import itertools
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from psiflow_core import answers
from psiflow_core.components import Executor, Pool
from psiflow_core.environments.environment import Environment
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Blocks, PoolReport
from psiflow_core.execution.blocks._orphans import Orphans
from psiflow_core.execution.pools_folder import PoolsFolder
from psiflow_core.execution.started import Started as Started
from psiflow_core.execution.tasks.perform import carry_out
from psiflow_core.execution.tasks.request import Grant, Request, Result
from psiflow_core.execution.transport.depot import Depot
from psiflow_core.processes import guard
from psiflow_core.processes.limits import end

if TYPE_CHECKING:
    from parsl.dataflow.dflow import DataFlowKernel

    from psiflow_core.execution.blocks._htex import WorkerProcesses
    from psiflow_core.execution.blocks._threads import DriverThreads

logger = logging.getLogger("psiflow.pools")

Key = tuple[str, str]
"""A pool: the name of its executor, and the name of its workers' environment."""

NUMBERS = itertools.count()
"""Numbers of the contexts of this process; they make folder names unique."""


class Pools:
    """Workers of each executor, in each requested environment.

    Args:
        executors: executors by name.
        folder: for scripts and logs; by default a temporary folder.
    """

    def __init__(self, executors: Mapping[str, Executor], folder: Path | None) -> None:
        self._executors = executors
        self._given_folder = folder
        number = next(NUMBERS)
        self._process = f"{os.getpid()}-{number}" if number else str(os.getpid())
        """The context's number: contexts of one process may use the same folder."""
        self._changed: Callable[[], None] = lambda: None
        self._kernel: DataFlowKernel | None = None
        self._depot: Depot | None = None
        """For workers that do not see the driver's files."""
        self.started: dict[Key, Started] = {}

    def watch(self, changed: Callable[[], None]) -> None:
        """Call a function, in another thread, whenever a pool has more free workers without a task having ended.

        Call `watch` before `start`.
        """
        self._changed = changed

    def free(self, pool: Key) -> int:
        """Workers of a started pool that are present, take tasks, and have none; negative if more tasks were sent.

        It is cheap: nothing is asked for. A task that was sent counts at once.
        """
        started = self.started[pool]
        return started.executor.free(len(started.running))

    def want(self, pool: Key, tasks: int) -> None:
        """Tell a started pool how many tasks run in it or wait for it, whether they were sent or not.

        Blocks are submitted and given back accordingly. Before the first call, the tasks that were sent are the demand.
        """
        self.started[pool].executor.want(tasks)

    def hold(self, pool: Key, manager: str) -> None:
        """Send no more tasks to the workers of a node of a block (`Place.manager`): it ends soon, for instance.

        Their tasks go on; then the block is given back, and another one submitted.
        """
        self.started[pool].executor.hold(manager)

    def exclude(self, pool: Key, host: str) -> None:
        """Send no more tasks to a host (`Place.host`), now or later, and ask the scheduler for others."""
        self.started[pool].executor.exclude(host)

    def interrupted(self, pool: Key, block: str) -> bool:
        """Whether a block (`Place.block`) was ended by its scheduler or its wall time, not by a task.

        A task that was lost with such a block has spent no attempt. It may ask the scheduler, which takes seconds;
        it is True if the scheduler does not answer.
        """
        return self.started[pool].executor.interrupted(block)

    def has(self, pool: Key, block: str) -> bool:
        """Whether a block (`Place.block`) has not ended."""
        return any(one.block == block for one in self.report_of(pool).blocks)

    def report_of(self, pool: Key) -> PoolReport:
        """The state of a started pool."""
        return self.started[pool].executor.report(len(self.started[pool].running))

    def report(self) -> tuple[PoolReport, ...]:
        """The states of all started pools."""
        return tuple(map(self.report_of, list(self.started)))

    def start(self, wanted: Sequence[tuple[str, Environment]]) -> None:
        """Start the pools that do not run yet.

        Raises:
            EnvironmentUnfit: an environment does not fit this interpreter, or has changed since it was recorded.
        """
        new = {(name, one.name): one for name, one in wanted if (name, one.name) not in self.started}
        if not new:
            return
        for environment in {one.name: one for one in new.values() if one.name}.values():
            environment.agree()
        kernel = self._running_kernel()
        built = {key: self._build(key[0], environment) for key, environment in new.items()}
        for pool in built.values():
            where = f"environment '{pool.environment.name}'" if pool.environment.name else "the driver's environment"
            logger.info("pool '%s' starts in %s", pool.executor.label, where)
        self.started |= built
        try:
            kernel.add_executors([pool.executor for pool in built.values()])
        except BaseException:
            self.close()
            raise

    def revive(self, pool: Key) -> None:
        """Restart a started pool that has died."""
        if self.started[pool].dead():
            self._replace(pool)

    def try_again(self, pool: Key) -> None:
        """Restart a started pool that has died, or whose workers did not start: the cause may be mended."""
        if self.started[pool].dead() or self.started[pool].failed():
            self._replace(pool)

    def submit(self, pool: Key, request: Request, grant: Grant) -> Future[str]:
        """Submit a task to a started pool."""
        self.revive(pool)
        if request.places and not self._executors[pool[0]].shares_files():
            return self._send_away(pool, request, grant)
        return self._send(pool, request, grant)

    def _send_away(self, pool: Key, request: Request, grant: Grant) -> Future[str]:
        """Submit a task whose files travel with it."""
        self._depot = self._depot or Depot()
        other = self._depot.claim(request)
        if other is not None:
            return _ended(request.claimed_by(str(other)))
        ticket = self._depot.ticket(request, cast(Blocks, self._executors[pool[0]]).addresses())
        future = self._send(pool, request, grant.model_copy(update={"ticket": ticket}))
        future.add_done_callback(partial(self._depot.ended, ticket))
        return future

    def _send(self, pool: Key, request: Request, grant: Grant) -> Future[str]:
        task = object()
        running = self.started[pool].running
        running.add(task)
        future: Future[str] = self._running_kernel().submit(
            carry_out,
            app_args=(request.kind, json.dumps(request.to_plain()), json.dumps(grant.to_plain())),
            executors=[self.started[pool].executor.label],
            cache=False,
            ignore_for_cache=None,
            app_kwargs={},
        )
        future.add_done_callback(lambda done: running.discard(task))
        return future

    def waiting(self) -> str:
        """Pools whose workers have never answered while tasks wait, with the states of their blocks; else empty."""
        told = [started.executor.waiting() for started in list(self.started.values())]
        return "; ".join(filter(None, told))

    def close(self) -> None:
        """End all started processes."""
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        logger.info("pools end: %s", ", ".join(pool.executor.label for pool in self.started.values()))
        processes = [process for pool in self.started.values() for process in guard.guarding(pool.folder)]
        well = not any(pool.failed() for pool in self.started.values())
        try:
            for pool in self.started.values():
                if lost := pool.dead():
                    pool.executor.set_bad_state_and_fail_all(lost)
            kernel.cleanup()
        finally:
            end(processes)
            self.started.clear()
            self._orphans.stop()
            if self._depot is not None:
                self._depot.close()
                self._depot = None
            self._folder.close(well)

    def _running_kernel(self) -> DataFlowKernel:
        if self._kernel is not None:
            return self._kernel
        from parsl.config import Config
        from parsl.dataflow.dflow import DataFlowKernel

        remote = any(isinstance(one, Blocks) and one.remote for one in self._executors.values())
        self._folder = PoolsFolder(self._given_folder, remote, self._process)
        self._orphans = Orphans(self._folder.all())
        self._orphans.start()
        guard.mark_driver()
        config = Config(
            executors=(),
            initialize_logging=False,
            run_dir=str(self._folder.path / "parsl"),
            strategy="none",
            exit_mode="skip",
            usage_tracking=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._kernel = DataFlowKernel(config)
        return self._kernel

    def _build(self, name: str, environment: Environment, number: int = 0) -> Started:
        """A pool's executor, and the folder of its guards."""
        label = "-".join([name, *([environment.name] if environment.name else []), *([str(number)] if number else [])])
        folder = self._folder.path / f"{label}-{self._process}"
        pool = Pool(label, folder, environment.launch, os.getpid(), isolated=bool(environment.name))
        return Started(self._guarded(self._executors[name], pool), environment, folder, number)

    def _guarded(self, executor: Executor, pool: Pool) -> WorkerProcesses | DriverThreads:
        """The Parsl executor of an executor; refused if its processes could outlive the driver.

        Raises:
            OptionError: it is neither the executor of `Blocks` nor threads of the driver.
            WrongAnswer: the executor fails, or breaks its contract.
        """
        from psiflow_core.execution.blocks._htex import WorkerProcesses
        from psiflow_core.execution.blocks._threads import DriverThreads

        who = f"executor '{executor.name}'"
        answers.slots(executor, who)
        with answers.in_the_driver(who):
            built = executor.build(pool)
        if not isinstance(built, WorkerProcesses | DriverThreads):
            raise OptionError(
                f"executor '{executor.name}' builds its own {type(built).__name__}: its processes would outlive a "
                "killed driver, and hung tasks would never be ended. Let it inherit from "
                "psiflow_core.execution.blocks.Blocks, and implement `scheduler` instead of `build`"
            )
        built.watch(lambda: self._changed())
        return built

    def _replace(self, key: Key) -> None:
        """Restart a pool whose interchange has died, or whose workers did not start."""
        dead = self.started[key]
        lost = dead.dead()
        logger.warning("pool '%s' is restarted: %s", dead.executor.label, lost or dead.failed())
        if lost is not None:
            dead.executor.set_bad_state_and_fail_all(lost)
        dead.executor.end()
        end(guard.guarding(dead.folder))
        self.started[key] = self._build(key[0], dead.environment, dead.number + 1)
        self._running_kernel().add_executors([self.started[key].executor])


def _ended(result: Result) -> Future[str]:
    """The future of a task that needs no worker."""
    future: Future[str] = Future()
    future.set_result(json.dumps({"value": result.to_plain(), "seconds": 0.0, "worker": ""}))
    return future
