"""Pools of workers on Parsl: started, found dead, started anew, and ended. The only file that knows of its kernel."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psiflow_core import answers, guard
from psiflow_core.components import Executor, Pool
from psiflow_core.environments import Environment
from psiflow_core.errors import OptionError, PoolFailed, WorkerLost
from psiflow_core.leases import end
from psiflow_core.structures import Plain
from psiflow_core.tasks import perform

if TYPE_CHECKING:
    from parsl.dataflow.dflow import DataFlowKernel
    from parsl.executors.base import ParslExecutor

Key = tuple[str, str]
"""A pool: the name of its executor, and of the environment that its workers run in."""


NUMBERS = itertools.count()
"""Of the contexts of this process, to tell their folders apart."""


@dataclass(frozen=True)
class Started:
    """A pool that runs."""

    executor: ParslExecutor
    environment: Environment
    folder: Path
    number: int
    """How often it was started anew."""


class Pools:
    """Workers of each executor, in each environment that is asked for.

    Args:
        executors: by name.
        folder: for scripts and logs; by default a temporary one.
    """

    def __init__(self, executors: Mapping[str, Executor], folder: Path | None) -> None:
        self._executors = executors
        self._given_folder = folder
        self._folder = Path()
        number = next(NUMBERS)
        self._process = f"{os.getpid()}-{number}" if number else str(os.getpid())
        """Whose pools they are: several contexts of a process may have been given the same folder."""
        self._own_folder: tempfile.TemporaryDirectory[str] | None = None
        self._kernel: DataFlowKernel | None = None
        self.started: dict[Key, Started] = {}

    def start(self, wanted: Sequence[tuple[str, Environment]]) -> None:
        """Start the pools that do not run yet.

        Raises:
            EnvironmentUnfit: an environment disagrees with this interpreter, or is not as it was recorded.
        """
        new = {(name, one.name): one for name, one in wanted if (name, one.name) not in self.started}
        if not new:
            return
        for environment in {one.name: one for one in new.values() if one.name}.values():
            environment.agree()
        kernel = self._running_kernel()
        built = {key: self._build(key[0], environment) for key, environment in new.items()}
        self.started |= built
        try:
            kernel.add_executors([pool.executor for pool in built.values()])
        except BaseException:
            self.close()
            raise

    def submit(self, pool: Key, kind: str, task: Plain) -> Future[Plain]:
        """Send a task to a pool that was started; it is started anew if it has died or failed since."""
        if pool in dict(self.dead()) or self.failed(pool):
            self._replace(pool)
        future: Future[Plain] = self._running_kernel().submit(
            perform,
            app_args=(kind, task),
            executors=[self.started[pool].executor.label],
            cache=False,
            ignore_for_cache=None,
            app_kwargs={},
        )
        return future

    def dead(self) -> Iterator[tuple[Key, WorkerLost]]:
        """Pools whose interchange has died: Parsl would wait for their tasks for ever."""
        for pool, started in self.started.items():
            process = getattr(started.executor, "interchange_proc", None)
            if process is not None and process.poll() is not None:
                label, code, said = started.executor.label, process.returncode, started.executor.last_words()
                words = f"the interchange of pool '{label}' has died (exit code {code})"
                yield pool, WorkerLost(f"{words}: {said}" if said else words)

    def failed(self, pool: Key) -> PoolFailed | None:
        """Why a pool has given up, if it has: its workers do not start."""
        executor = self.started[pool].executor
        reason = executor.executor_exception if getattr(executor, "bad_state_is_set", False) else None
        return reason if isinstance(reason, PoolFailed) else None

    def waiting(self) -> str:
        """Which workers tasks wait for that have never answered, and what has come of their blocks; else empty."""
        told = [getattr(started.executor, "waiting", str)() for started in list(self.started.values())]
        return "; ".join(filter(None, told))

    def close(self) -> None:
        """End every process that was started."""
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        processes = [process for pool in self.started.values() for process in guard.guarding(pool.folder)]
        try:
            for pool, lost in self.dead():
                self.started[pool].executor.set_bad_state_and_fail_all(lost)
            kernel.cleanup()
        finally:
            end(processes)
            self.started.clear()
            if self._own_folder is not None:
                self._own_folder.cleanup()

    def _running_kernel(self) -> DataFlowKernel:
        if self._kernel is not None:
            return self._kernel
        from parsl.config import Config
        from parsl.dataflow.dflow import DataFlowKernel

        self._own_folder = tempfile.TemporaryDirectory(prefix="psiflow-", ignore_cleanup_errors=True)
        self._folder = Path(self._own_folder.name)
        if self._given_folder is not None:
            self._given_folder.mkdir(parents=True, exist_ok=True)
            self._folder = _harmless(self._given_folder.absolute(), self._folder)
        guard.mark_driver()
        config = Config(
            executors=(),
            initialize_logging=False,
            run_dir=str(self._folder / "parsl"),
            strategy_period=0.5,
            exit_mode="skip",
            usage_tracking=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._kernel = DataFlowKernel(config)
        return self._kernel

    def _build(self, name: str, environment: Environment, number: int = 0) -> Started:
        """A pool's executor, and the folder in which its guards know it."""
        label = "-".join([name, *([environment.name] if environment.name else []), *([str(number)] if number else [])])
        folder = self._folder / f"{label}-{self._process}"
        pool = Pool(label, folder, environment.launch, os.getpid(), isolated=bool(environment.name))
        return Started(self._guarded(self._executors[name], pool), environment, folder, number)

    def _guarded(self, executor: Executor, pool: Pool) -> ParslExecutor:
        """What an executor builds, unless its processes could outlive the driver.

        Raises:
            OptionError: it is not that of `Blocks`, nor threads of the driver.
            WrongAnswer: the executor fails, or returns what its contract does not allow.
        """
        from parsl.executors import ThreadPoolExecutor

        from psiflow_core.blocks._htex import WorkerProcesses

        who = f"executor '{executor.name}'"
        answers.slots(executor, who)
        with answers.in_the_driver(who):
            built = executor.build(pool)
        if not isinstance(built, WorkerProcesses | ThreadPoolExecutor):
            raise OptionError(
                f"executor '{executor.name}' builds a {type(built).__name__} of its own: its processes would outlive a "
                "driver that is killed, and nobody would end tasks that hang. Let it inherit from "
                "psiflow_core.blocks.Blocks, and give its provider instead"
            )
        return built

    def _replace(self, key: Key) -> None:
        """Start a pool anew, of which the interchange has died, or the workers did not start."""
        dead, lost = self.started[key], dict(self.dead()).get(key)
        if lost is not None:
            dead.executor.set_bad_state_and_fail_all(lost)
        end(guard.guarding(dead.folder))
        self.started[key] = self._build(key[0], dead.environment, dead.number + 1)
        self._running_kernel().add_executors([self.started[key].executor])


def _harmless(folder: Path, own: Path) -> Path:
    """The folder by a name that means nothing to a shell, which Parsl starts workers with: its own, or a link's."""
    if re.fullmatch(r"[\w@%+=:,./-]+", str(folder), re.ASCII):
        return folder
    link = own / "pools"
    link.symlink_to(folder, target_is_directory=True)
    return link
