"""The base of executors that start workers in blocks: an author says how a block is started, the rest is here.

A block is what a provider of Parsl starts in one piece: a process on this machine, a job of a batch system.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from psiflow_core.components import Executor, Pool, Resources

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor
    from parsl.providers.base import ExecutionProvider

LOOPBACK = "127.0.0.1"


def machine_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> float:
    """[GiB]"""
    import psutil

    return float(psutil.virtual_memory().total / 2**30)


class Blocks(Executor):
    """Worker processes in blocks that a provider of Parsl starts.

    A subclass implements `provider`, and overrides `block_count`, `block_cores`, `block_memory` and
    `driver_address` where blocks are elsewhere than on this machine. The rest comes with this class: processes end
    when the driver has died, tasks are ended that take more than they may, connections are encrypted, and what
    ends blocks at once is told in their own words. A block is one node.
    """

    cores_per_worker: PositiveInt = 1
    """Threads that one task may use."""
    workers: PositiveInt | None = None
    """Worker processes in a block; by default as many as fit on its cores and in its memory."""
    memory_per_worker: PositiveFloat | None = None
    """What a task may use; one that takes more is ended. Left out: an even share of the memory, and no more
    workers than have 2 GiB each. [GiB]"""
    wall_time: PositiveFloat | None = None
    """How long a task may run; one that takes longer is ended. [s]"""
    silence: PositiveFloat | None = 600.0
    """How long a task may run without using a processor; after that it is taken to hang, and ended. [s]"""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where potentials compute."""
    gpus: PositiveInt = 1
    """GPUs to spread the workers of a block over, if the device is cuda."""
    encrypted: bool = True
    """Encrypt the connections between driver and workers."""

    @abstractmethod
    def provider(self) -> ExecutionProvider:
        """A new provider of Parsl, which starts blocks. `block_count` says how many, not the provider."""

    def block_count(self) -> int:
        """Blocks at once."""
        return 1

    def block_cores(self) -> int:
        """Cores of a block; by default those of this machine."""
        return machine_cores()

    def block_memory(self) -> float:
        """Memory of a block; by default that of this machine. [GiB]"""
        return machine_memory()

    def driver_address(self) -> str:
        """Where workers find the driver; by default they are on its machine."""
        return LOOPBACK

    def slots(self) -> int:
        return self.block_count() * self._workers()

    def resources(self) -> Resources:
        memory = self.memory_per_worker or self.block_memory() / self._workers()
        return Resources(self.cores_per_worker, self.device, memory, self.wall_time, self.silence)

    def build(self, pool: Pool) -> ParslExecutor:
        from psiflow_core.blocks._htex import WorkerProcesses, of_one_node

        provider = of_one_node(self.provider(), f"executor '{self.name}'")
        provider.init_blocks = provider.min_blocks = 1
        provider.max_blocks = self.block_count()
        return WorkerProcesses(
            pool,
            provider,
            workers=self._workers(),
            cores=self.cores_per_worker,
            accelerators=self._accelerators(),
            address=self.driver_address(),
            encrypted=self.encrypted,
        )

    def _workers(self) -> int:
        """Of one block."""
        if self.workers is not None:
            return self.workers
        if self.device == "cuda":
            return self.gpus
        by_memory = int(self.block_memory() / (self.memory_per_worker or 2.0))
        return max(1, min(self.block_cores() // self.cores_per_worker, by_memory))

    def _accelerators(self) -> list[str]:
        """What Parsl sets CUDA_VISIBLE_DEVICES to in each worker; it starts no more workers than there are entries.

        Parsl takes a bare number for the number of a worker, to be divided by the workers per GPU of the machine.
        CUDA ends the list at the -1: exactly the GPU before it is seen.
        """
        return [f"{worker % self.gpus},-1" for worker in range(self._workers())] if self.device == "cuda" else []
