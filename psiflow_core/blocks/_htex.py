"""Parsl's worker-process executor, guarded: nothing outlives the driver, nothing waits for ever on what has died."""

from __future__ import annotations

import shlex
import sys
import time
from functools import partial
from typing import Any

import zmq
from parsl.executors import HighThroughputExecutor
from parsl.jobs.states import JobState, JobStatus
from parsl.providers import LocalProvider
from parsl.providers.base import ExecutionProvider

from psiflow_core import guard
from psiflow_core.blocks._said import last_words, said
from psiflow_core.components import Pool
from psiflow_core.errors import OptionError, PoolFailed

ANSWER_WITHIN = 5.0
"""Seconds that the interchange may take to answer a command or to take a task; Parsl itself sets no limit."""

IN_VAIN = 3
"""Blocks that may end one after the other without a worker of theirs having answered. A queue may be long: what
is counted is blocks that ended, not time."""

WORKER_POOL = (
    "-m psiflow_core.blocks._awake parsl.executors.high_throughput.process_worker_pool "
    "{debug} {max_workers_per_node} -a {addresses} "
    "-p {prefetch_capacity} -c {cores_per_worker} -m {mem_per_worker} --poll {poll_period} "
    "--port={worker_port} --cert_dir {cert_dir} --logdir={logdir} --logconf={logconf} "
    "--block_id={{block_id}} --hb_period={heartbeat_period} {address_probe_timeout_string} "
    "--hb_threshold={heartbeat_threshold} --drain_period={drain_period} --cpu-affinity {cpu_affinity} "
    "{enable_mpi_mode} --mpi-launcher={mpi_launcher} --available-accelerators {accelerators}"
)
"""Parsl's own worker command, by module instead of by a script that would have to be on PATH."""

INTERCHANGE = ["-m", "psiflow_core.blocks._awake", "parsl.executors.high_throughput.interchange"]
"""Likewise."""


def of_one_node(provider: object, who: str) -> ExecutionProvider:
    """The provider of an executor; raises `OptionError` where it is none, or its blocks have several nodes."""
    if not isinstance(provider, ExecutionProvider):
        raise OptionError(f"{who} has a {type(provider).__name__} for a provider; return Parsl's")
    if provider.nodes_per_block != 1:
        raise OptionError(f"{who} asks for {provider.nodes_per_block} nodes in a block; ask for 1")
    return provider


class WorkerProcesses(HighThroughputExecutor):
    """A `HighThroughputExecutor` of which every process is guarded; it gives up when blocks end in vain.

    Args:
        workers: of each block.
        cores: threads of each worker.
        accelerators: what each worker sees of the GPUs; empty without any.
        address: where workers find the interchange.
    """

    def __init__(
        self,
        pool: Pool,
        provider: ExecutionProvider,
        *,
        workers: int,
        cores: int,
        accelerators: list[str],
        address: str,
        encrypted: bool,
    ) -> None:
        interchange = guard.command(pool.driver, pool.folder, "interchange")
        block = guard.command(pool.driver, pool.folder, "block-BLOCK", cores, pool.isolated)
        words = shlex.join([*block, *pool.python]).replace("BLOCK", "{{block_id}}")
        super().__init__(
            label=pool.label,
            provider=provider,
            launch_cmd=f"{words} {WORKER_POOL}",
            interchange_launch_cmd=[*interchange, sys.executable, *INTERCHANGE],
            address=address,
            loopback_address="127.0.0.1",
            cores_per_worker=1e-6,  # the number of workers is ours to say
            max_workers_per_node=workers,
            available_accelerators=accelerators,
            encrypted=encrypted,
            heartbeat_period=2,
            heartbeat_threshold=15,
            block_error_handler=False,  # `handle_errors` tells blocks that died at work from those that never began
            poll_period=10,
            worker_logdir_root=str(pool.folder),
        )
        self._folder = pool.folder
        self._begun = time.monotonic()
        self._answered: set[str] = set()
        """Blocks of which a manager has called, at any time."""

    @property
    def status_polling_interval(self) -> float:
        """Seconds between two looks at the blocks; those of this machine cost nothing to look at."""
        return 1.0 if isinstance(self.provider, LocalProvider) else float(super().status_polling_interval)

    def connected_blocks(self) -> list[str]:
        found: list[str] = super().connected_blocks()
        self._answered.update(found)
        return found

    def status(self) -> dict[str, JobStatus]:
        """Of its blocks. None once the interchange is dead: asking it would fail, and with it the poll of others."""
        return {} if self.interchange_dead else super().status()

    def handle_errors(self, status: dict[str, JobStatus]) -> None:
        """Give up when the latest blocks have all ended before they answered; Parsl calls it after every poll."""
        ended = self._in_vain(status)
        if len(ended) >= IN_VAIN and not self.bad_state_is_set:
            self.set_bad_state_and_fail_all(PoolFailed(self._why(status, ended)))
            self._cancel(status)

    def set_bad_state_and_fail_all(self, exception: Exception) -> None:
        if not self.bad_state_is_set:  # Parsl cannot fail a task twice
            super().set_bad_state_and_fail_all(exception)

    @property
    def interchange_dead(self) -> bool:
        return self.interchange_proc is None or self.interchange_proc.poll() is not None

    def last_words(self) -> str:
        """What the interchange said of its end; empty where it said nothing."""
        return last_words(said(self._folder, "interchange"))

    def waiting(self) -> str:
        """What the tasks wait for, and for how many seconds, while no worker has answered; else empty."""
        status = dict(self.status_facade)
        if self._running(status) or not self.outstanding():
            return ""
        states = {"in the queue": {JobState.PENDING, JobState.HELD}, "starting": {JobState.RUNNING}}
        counts = {word: sum(one.state in which for one in status.values()) for word, which in states.items()}
        ended = self._in_vain(status)
        told = [f"{count} {word}" for word, count in counts.items() if count]
        told += [f"{len(ended)} ended, none answered"] if ended else []
        if not ended and time.monotonic() - self._begun < ANSWER_WITHIN:
            return ""
        blocks = f" (blocks: {', '.join(told)})" if told else ""
        return f"waiting for workers of pool '{self.label}'{blocks}"

    def start(self) -> None:
        super().start()
        self.command_client.run = partial(self.command_client.run, timeout_s=ANSWER_WITHIN)
        self.outgoing_q.zmq_socket.setsockopt(zmq.SNDTIMEO, int(1000 * ANSWER_WITHIN))

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
        """Until it has called; Parsl would wait two minutes for one that has ended.

        Raises:
            PoolFailed: it has ended.
        """
        while not self.command_client.zmq_socket.poll(200, zmq.POLLOUT):
            if self.interchange_dead:
                raise PoolFailed(f"the interchange of pool '{self.label}' ended at its start: {self.last_words()}")

    def _running(self, status: dict[str, JobStatus]) -> bool:
        """Whether a block runs of which a manager has called."""
        return any(block in self._answered and not one.terminal for block, one in status.items())

    def _in_vain(self, status: dict[str, JobStatus]) -> list[str]:
        """The blocks that have ended without an answer, after the last that answered; none while one of those runs."""
        if self._running(status):
            return []
        last = max((int(block) for block in self._answered), default=-1)
        return [block for block, one in status.items() if one.state == JobState.MISSING and int(block) > last]

    def _why(self, status: dict[str, JobStatus], ended: list[str]) -> str:
        last = max(ended, key=int)
        said = self._words_of(last, status[last]) or "it said nothing"
        code = "" if status[last].exit_code is None else f" (exit code {status[last].exit_code})"
        return (
            f"the workers of pool '{self.label}' do not start: its last {len(ended)} blocks ended before they "
            f"answered. Block {last}{code}: {said}"
        )

    def _words_of(self, block: str, status: JobStatus) -> str:
        """What a block said: under its guard, or before there was one, or what its provider said of it."""
        told = (said(self._folder, f"block-{block}"), status.stderr_summary, status.stdout_summary)
        own = "" if (status.message or "").startswith("Job is marked as MISSING") else status.message
        return next((words for text in (*told, own) if (words := last_words(text or ""))), "")

    def _cancel(self, status: dict[str, JobStatus]) -> None:
        """Blocks that still wait in a queue: nobody would want their workers, and Parsl leaves them there."""
        waiting = [self.blocks_to_job_id[block] for block, one in status.items() if not one.terminal]
        if waiting:
            self.provider.cancel(waiting)
