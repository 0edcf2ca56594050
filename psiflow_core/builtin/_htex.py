"""Parsl's worker-process executor, made so that nothing waits for ever on a dead interchange."""

from __future__ import annotations

from functools import partial

import zmq
from parsl.executors import HighThroughputExecutor
from parsl.jobs.states import JobStatus

ANSWER_WITHIN = 5.0
"""Seconds that the interchange may take to answer a command or to take a task; Parsl itself sets no limit."""

WORKER_POOL = (
    "-m parsl.executors.high_throughput.process_worker_pool {debug} {max_workers_per_node} -a {addresses} "
    "-p {prefetch_capacity} -c {cores_per_worker} -m {mem_per_worker} --poll {poll_period} "
    "--port={worker_port} --cert_dir {cert_dir} --logdir={logdir} --logconf={logconf} "
    "--block_id={{block_id}} --hb_period={heartbeat_period} {address_probe_timeout_string} "
    "--hb_threshold={heartbeat_threshold} --drain_period={drain_period} --cpu-affinity {cpu_affinity} "
    "{enable_mpi_mode} --mpi-launcher={mpi_launcher} --available-accelerators {accelerators}"
)
"""Parsl's own worker command, by module instead of by a script that would have to be on PATH."""

INTERCHANGE = ["-m", "parsl.executors.high_throughput.interchange"]
"""Likewise."""


class WorkerProcesses(HighThroughputExecutor):
    """A `HighThroughputExecutor` whose commands and tasks do not wait for ever on a dead interchange."""

    def status(self) -> dict[str, JobStatus]:
        """Of its blocks. None once the interchange is dead: asking it would fail, and with it the poll of others."""
        return {} if self.interchange_proc is None or self.interchange_proc.poll() is not None else super().status()

    def start(self) -> None:
        super().start()
        self.command_client.run = partial(self.command_client.run, timeout_s=ANSWER_WITHIN)
        self.outgoing_q.zmq_socket.setsockopt(zmq.SNDTIMEO, int(1000 * ANSWER_WITHIN))
