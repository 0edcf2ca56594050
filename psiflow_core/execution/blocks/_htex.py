"""Parsl's worker-process executor, guarded: no process outlives the driver, and none waits for a dead one."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError

from psiflow_core.components import Pool
from psiflow_core.errors import PoolFailed
from psiflow_core.execution.blocks._crew import Crew, Manager
from psiflow_core.execution.blocks._keys import packed
from psiflow_core.execution.blocks._layout import LOOPBACK, Layout
from psiflow_core.execution.blocks._record import Record
from psiflow_core.execution.blocks._said import last_words, said
from psiflow_core.execution.blocks._supply import Supply, new_tag
from psiflow_core.execution.blocks.report import PoolReport
from psiflow_core.execution.blocks.scheduler import Scheduler
from psiflow_core.processes import guard
from psiflow_core.processes.block import GRACE

logger = logging.getLogger("psiflow.pools")

ANSWER_WITHIN = 5.0
"""Seconds that the interchange may take to answer a command or to take a task; Parsl itself sets no limit."""

LOOK = 0.2
"""Time between two looks at the managers, more if a look takes long: at a thousand managers, for instance. [s]"""

SHARE = 0.05
"""The part of the time that looks may take."""

CONNECT_WITHIN = 60
"""How long workers try to find the driver. [s]"""

INTERCHANGE = ["-m", "psiflow_core.execution.blocks._awake", "parsl.executors.high_throughput.interchange"]
"""Parsl's interchange, as a module instead of a script on PATH."""

MANAGER = ["-m", "psiflow_core.execution.blocks._node"]
"""Likewise, the manager of a node's workers."""


class WorkerProcesses(HighThroughputExecutor):
    """A `HighThroughputExecutor` with a guard for every process and with blocks from a scheduler.

    It gives up when blocks keep ending at their start, or when the scheduler refuses them.
    """

    def __init__(self, pool: Pool, scheduler: Scheduler, layout: Layout) -> None:
        interchange = guard.command(pool.driver, pool.folder, "interchange")
        remote = layout.remote
        super().__init__(
            label=pool.label,
            launch_cmd="unused",  # `_command` replaces it
            interchange_launch_cmd=[*interchange, sys.executable, *INTERCHANGE],
            address=LOOPBACK,
            loopback_address=LOOPBACK,
            max_workers_per_node=layout.workers,
            available_accelerators=layout.accelerators,
            encrypted=layout.encrypted,
            heartbeat_period=5 if remote else 2,
            heartbeat_threshold=30 if remote else 15,
            block_error_handler=False,
            poll_period=10,
            worker_logdir_root=str(pool.folder),
        )
        if remote:
            self.address = None  # the interchange listens on every interface
        self._layout, self._pool, self._folder = layout, pool, pool.folder
        self._begun = time.monotonic()
        self._wanted = 0
        self._crew, self._left = Crew(), threading.Event()
        self._changed: Callable[[], None] = lambda: None
        self._watch = threading.Thread(target=self._look_on, name=f"psiflow-managers-{pool.label}", daemon=True)
        tag = new_tag()
        self._supply = Supply(
            pool.label,
            scheduler,
            layout.size,
            pool.folder,
            self._crew,
            command=self._command,
            demand=self.demand,
            hold=self._hold_all,
            failed=self.set_bad_state_and_fail_all,
            on_every_node=layout.on_every_node,
            walltime=layout.walltime,
            tag=tag,
            record=Record(pool.folder, layout.executor, tag) if remote else None,
            secrets=self._secrets,
        )

    @property
    def status_polling_interval(self) -> float:
        """Parsl must not scale it: a pool does that itself."""
        return 0.0

    def watch(self, changed: Callable[[], None]) -> None:
        """Call a function, in another thread, whenever there are more free workers without a task having ended."""
        self._changed = changed

    def demand(self) -> int:
        """Tasks that run or wait for a worker."""
        return max(self._wanted, self.outstanding())

    def want(self, tasks: int) -> None:
        """Tell how many tasks run or wait for a worker, sent or not: blocks are started and given back accordingly."""
        self._wanted = tasks
        self._supply.notice()

    def free(self, sent: int) -> int:
        """Free workers that take tasks, if so many tasks were sent and have not ended; negative if these are more."""
        return 0 if self.bad_state_is_set else self._crew.free(sent)

    def hold(self, manager: str) -> None:
        """Send no more tasks to a manager; those that it has go on. Its block is given back after them."""
        self._crew.hold(manager)
        self._hold_unwanted()

    def exclude(self, host: str) -> None:
        """Send no more tasks to a host, and ask the scheduler for others."""
        self._crew.exclude(host)
        self._hold_unwanted()

    def interrupted(self, block: str) -> bool:
        """Whether a block was ended by its scheduler or its wall time, not by its tasks. It may ask the scheduler."""
        return self._supply.interrupted(block)

    def report(self, sent: int = 0) -> PoolReport:
        """The state of the pool, if so many tasks were sent and have not ended."""
        book = self._supply.book
        vain = tuple(f"block {one.number}: {book.words_of(one)}" for one in book.in_vain())
        numbers = max(self._wanted, sent), self._crew.workers(), sent
        blocks, excluded = book.reports(), self._crew.excluded
        return PoolReport(self.label, *numbers, blocks, excluded, self._supply.trouble, vain)

    def submit_payload(self, context: dict[str, Any], buffer: bytes) -> Any:
        future = super().submit_payload(context, buffer)
        self._supply.notice()
        return future

    def set_bad_state_and_fail_all(self, exception: Exception) -> None:
        self._supply.end()
        if not self.bad_state_is_set:  # Parsl cannot fail a task twice
            super().set_bad_state_and_fail_all(exception)

    @property
    def interchange_dead(self) -> bool:
        return self.interchange_proc is None or self.interchange_proc.poll() is not None

    def last_words(self) -> str:
        """The last error output of the interchange; empty without any."""
        return last_words(said(self._folder, "interchange"))

    def end(self) -> None:
        """Cancel all blocks, and start no more."""
        self._supply.end()

    def waiting(self) -> str:
        """The state of the blocks while tasks wait and no worker is present; else empty."""
        if self._crew.workers() or not self.demand():
            return ""
        report = self.report(self.outstanding())
        queued = [one for one in report.blocks if one.phase == "waiting"]
        starting = len(report.blocks) - len(queued)
        words = "; ".join(dict.fromkeys(one.words for one in queued if one.words))
        told = [f"{len(queued)} in the queue{f': {words}' if words else ''}"] if queued else []
        told += [f"{starting} starting"] if starting else []
        told += [f"{len(report.ended)} ended, none answered"] if report.ended else []
        if not report.ended and not report.trouble and time.monotonic() - self._begun < ANSWER_WITHIN:
            return ""
        blocks = f" (blocks: {', '.join(told)})" if told else ""
        trouble = f"; its scheduler says: {report.trouble}" if report.trouble else ""
        return f"waiting for workers of pool '{self.label}'{blocks}{trouble}"

    def start(self) -> None:
        super().start()
        self.command_client.run = partial(self.command_client.run, timeout_s=ANSWER_WITHIN)
        self.outgoing_q.zmq_socket.setsockopt(zmq.SNDTIMEO, int(1000 * ANSWER_WITHIN))
        self._watch.start()
        self._supply.start()

    def initialize_scaling(self) -> None:
        """Nothing: `start` starts the supply of blocks."""

    def shutdown(self, timeout: float = 10.0) -> None:
        self._left.set()
        self._supply.stop()
        if self._watch.ident is not None:
            self._watch.join()
        super().shutdown(timeout)

    def _command(self, block: str) -> tuple[str, ...]:
        """The words of the command that starts the workers of a node of a block."""
        layout, pool = self._layout, self._pool
        words = guard.command(
            pool.driver,
            pool.folder,
            f"block-{block}" if layout.shares_files else None,
            layout.threads,
            pool.isolated,
            python=layout.guard,
            walltime=layout.walltime,
            grace=GRACE if layout.remote else 0.0,
        )
        words += [*layout.python, *MANAGER, block, str(layout.cores)]
        words += ["--addresses", ",".join(layout.addresses), "--port", str(self.worker_port)]
        words += ["--cert_dir", str(self.cert_dir), "--logdir", self.worker_logdir, "--logconf", "None"]
        words += ["--max_workers_per_node", str(layout.workers), "--cores_per_worker", "1e-6"]
        words += ["--mem_per_worker", "None", "--prefetch_capacity", "0", "--poll", str(self.poll_period)]
        words += ["--hb_period", str(self.heartbeat_period), "--hb_threshold", str(self.heartbeat_threshold)]
        words += ["--address_probe_timeout", str(CONNECT_WITHIN), "--cpu-affinity", "none"]
        words += ["--mpi-launcher", self.mpi_launcher, "--available-accelerators", *self.available_accelerators]
        return layout.wrapped(tuple(words))

    def _secrets(self) -> Mapping[str, str]:
        """Parsl's keys, for nodes that see no files of the driver."""
        if self._layout.shares_files:
            return {}
        return packed(None if self.cert_dir is None else Path(self.cert_dir))

    def _look_on(self) -> None:
        took = 0.0
        while not self._left.wait(max(LOOK, took / SHARE)) and not self.interchange_dead:
            begun = time.monotonic()
            try:
                self._look()
            except Exception:  # the next look comes all the same
                logger.exception("pool '%s': a look at its workers has failed", self.label)
            took = time.monotonic() - begun

    def _look(self) -> None:
        """Look at the managers that are present."""
        more = self._crew.see(map(Manager.read, self._ask("MANAGERS") or ()))
        self._hold_unwanted()
        if more:
            self._changed()

    def _hold_unwanted(self) -> None:
        for manager in self._crew.unwanted():
            self._ask(["HOLD_MANAGER", manager])

    def _hold_all(self, managers: Sequence[str]) -> None:
        for manager in managers:
            self._crew.hold(manager)
        self._look()

    def _ask(self, command: Any) -> Any:
        """The interchange's answer; None if there is none in time. Parsl's client would then never ask again."""
        try:
            return self.command_client.run(command)
        except (CommandClientTimeoutError, CommandClientBadError):
            if not self.interchange_dead and not self._left.is_set():
                self._renew_client()
            return None

    def _renew_client(self) -> None:
        client = self.command_client
        with client._lock, contextlib.suppress(zmq.ZMQError):
            client.zmq_socket.close(linger=0)
            client.create_socket_and_bind()
            client.ok = True

    def _start_local_interchange_process(self) -> None:
        ask = self.command_client.run

        def ask_the_living(message: Any, **rest: Any) -> Any:
            self._await_interchange()
            return ask(message, **rest)

        self.command_client.run = ask_the_living
        try:
            super()._start_local_interchange_process()
        except BrokenPipeError:
            self._await_interchange()
            raise
        finally:
            self.command_client.run = ask

    def _await_interchange(self) -> None:
        """Wait until the interchange has connected; Parsl would wait two minutes for one that has ended.

        Raises:
            PoolFailed: the interchange has ended.
        """
        while not self.command_client.zmq_socket.poll(200, zmq.POLLOUT):
            if self.interchange_dead:
                raise PoolFailed(f"the interchange of pool '{self.label}' ended at its start: {self.last_words()}")
