"""Executors for one machine: worker processes, and threads for debugging."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from psiflow_core import guard
from psiflow_core.components import Executor, Pool, Resources
from psiflow_core.errors import OptionError

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor

LOOPBACK = "127.0.0.1"


def machine_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> float:
    """[GiB]"""
    import psutil

    return float(psutil.virtual_memory().total / 2**30)


class Local(Executor):
    """Worker processes on this machine, over encrypted loopback connections."""

    name: ClassVar[str] = "local"

    cores_per_worker: PositiveInt = 1
    """Threads that one task may use."""
    workers: PositiveInt | None = None
    """Worker processes; by default as many as fit on the cores and in the memory of the machine."""
    memory_per_worker: PositiveFloat | None = None
    """What a task may use; one that takes more is ended. Left out: an even share of the machine, and no more
    workers than have 2 GiB each. [GiB]"""
    wall_time: PositiveFloat | None = None
    """How long a task may run; one that takes longer is ended. [s]"""
    silence: PositiveFloat | None = 600.0
    """How long a task may run without using a processor; after that it is taken to hang, and ended. [s]"""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where potentials compute."""
    gpus: PositiveInt = 1
    """GPUs to spread the workers over, if the device is cuda."""
    encrypted: bool = True
    """Encrypt the connections between driver and workers."""

    def slots(self) -> int:
        if self.workers is not None:
            return self.workers
        if self.device == "cuda":
            return self.gpus
        by_memory = int(machine_memory() / (self.memory_per_worker or 2.0))
        return max(1, min(machine_cores() // self.cores_per_worker, by_memory))

    def resources(self) -> Resources:
        memory = self.memory_per_worker or machine_memory() / self.slots()
        return Resources(self.cores_per_worker, self.device, memory, self.wall_time, self.silence)

    def _accelerators(self) -> list[str]:
        """What Parsl sets CUDA_VISIBLE_DEVICES to in each worker; it starts no more workers than there are entries.

        Parsl takes a bare number for the number of a worker, to be divided by the workers per GPU of the machine.
        CUDA ends the list at the -1: exactly the GPU before it is seen.
        """
        return [f"{worker % self.gpus},-1" for worker in range(self.slots())] if self.device == "cuda" else []

    def build(self, pool: Pool) -> ParslExecutor:
        from parsl.launchers import SimpleLauncher
        from parsl.providers import LocalProvider

        from psiflow_core.builtin._htex import INTERCHANGE, WORKER_POOL, WorkerProcesses

        guarded = guard.command(pool.driver, pool.folder)
        workers = guard.command(pool.driver, pool.folder, self.cores_per_worker, pool.isolated)
        return WorkerProcesses(
            label=pool.label,
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1, launcher=SimpleLauncher()),
            launch_cmd=f"{shlex.join([*workers, *pool.python])} {WORKER_POOL}",
            interchange_launch_cmd=[*guarded, sys.executable, *INTERCHANGE],
            address=LOOPBACK,
            loopback_address=LOOPBACK,
            cores_per_worker=1e-6,  # the number of workers is ours to say
            max_workers_per_node=self.slots(),
            available_accelerators=self._accelerators(),
            encrypted=self.encrypted,
            heartbeat_period=2,
            heartbeat_threshold=15,
            block_error_handler=False,  # a block that died is replaced, instead of ending the pool
            poll_period=10,
            worker_logdir_root=str(pool.folder),
        )


class Threads(Executor):
    """Threads of the driver's own process: for debugging, where a breakpoint has to be reached.

    A working directory belongs to a process: tasks work in the driver's here, and print to its terminal. Two labels of
    a code that writes into its working directory would meet in it; worker processes work in a folder for each task.
    """

    name: ClassVar[str] = "threads"

    workers: PositiveInt = 1
    """Threads."""
    cores_per_worker: PositiveInt = 1
    """Threads that one task's engine may use."""

    def slots(self) -> int:
        return self.workers

    def resources(self) -> Resources:
        return Resources(self.cores_per_worker)

    def build(self, pool: Pool) -> ParslExecutor:
        from parsl.executors import ThreadPoolExecutor

        if pool.isolated:
            raise OptionError(
                "executor 'threads' runs in the driver's own interpreter, and this work needs "
                f"{shlex.join(pool.python)}; use executor 'local'"
            )
        return ThreadPoolExecutor(label=pool.label, max_threads=self.workers)
