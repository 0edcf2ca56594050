"""The base of executors that start workers in blocks."""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from psiflow_core.components import Executor, Pool, Resources
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks._layout import LOOPBACK, Layout
from psiflow_core.execution.blocks._scaling import Size
from psiflow_core.execution.blocks.scheduler import Scheduler

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor


def machine_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> float:
    """[GiB]"""
    import psutil

    return float(psutil.virtual_memory().total / 2**30)


class Blocks(Executor):
    """Worker processes in blocks, which a scheduler starts.

    A subclass implements `scheduler`. If its blocks do not run on this machine, it inherits from `Batch` instead. This
    class does the rest: processes end when the driver has died, tasks that exceed their limits are ended, connections
    are encrypted, and a block that ends at its start is reported with its error output.
    """

    remote: ClassVar[bool] = False
    """Whether blocks run on other machines, where they may outlive the driver."""

    cores_per_worker: PositiveInt = 1
    """Threads that one task may use."""
    workers: PositiveInt | None = None
    """Worker processes on a node; by default as many as fit on its cores and in its memory, or one for each GPU. With
    more workers than GPUs, workers share GPUs, under MPS for instance."""
    memory_per_worker: PositiveFloat | None = None
    """Memory of a task; a task that uses more is ended. By default an even share of the memory, and no more
    workers than have 2 GiB each. [GiB]"""
    task_walltime: PositiveFloat | None = None
    """Largest wall time of a task; a longer task is ended. [s]"""
    silence: PositiveFloat | None = 600.0
    """How long a task may use no processor time; after that it counts as hung, and is ended. [s]"""
    device: Literal["cpu", "cuda"] = "cpu"
    """The device of potentials."""
    gpus: NonNegativeInt = 1
    """GPUs to spread the workers of a node over, if the device is cuda."""
    encrypted: bool = True
    """Encrypt the connections between driver and workers."""

    @abstractmethod
    def scheduler(self, pool: Pool) -> Scheduler:
        """A new source of blocks."""

    def block_count(self) -> int:
        """Number of blocks that run at once."""
        return 1

    def kept_blocks(self) -> int:
        """Number of blocks that start with the pool, and are kept without tasks."""
        return self.block_count()

    def nodes_with_workers(self) -> int:
        """Nodes of a block on which workers are started."""
        return 1

    def node_cores(self) -> int:
        """Cores of a node; by default those of this machine."""
        return machine_cores()

    def node_memory(self) -> float | None:
        """Memory of a node; by default that of this machine, None if it is not known. [GiB]"""
        return machine_memory()

    def longest_idle(self) -> float:
        """A block without tasks is given back after this time, except for the blocks that are kept. [s]"""
        return 60.0

    def block_time(self) -> float | None:
        """Wall time of a block; None if it is not known. [s]"""
        return None

    def divided_cores(self) -> int:
        """Cores of a node that its workers divide among them; 0, the default, if other processes use them as well."""
        return 0

    def threads(self) -> int:
        """Threads that numerical libraries of a worker may start."""
        return self.cores_per_worker

    def addresses(self) -> tuple[str, ...]:
        """The driver's addresses for workers, which try them all; by default they run on the same machine."""
        return (LOOPBACK,)

    def guard_python(self) -> str:
        """The Python of the guard of a block's workers."""
        return sys.executable

    def worker_python(self, pool: Pool) -> tuple[str, ...]:
        """The words of the command of the workers' Python."""
        return pool.python

    def wrapped(self, command: tuple[str, ...], pool: Pool) -> tuple[str, ...]:
        """The command that starts workers, under another one."""
        return command

    def slots(self) -> int:
        return self.block_count() * self.workers_of_node() * self.nodes_with_workers()

    def resources(self) -> Resources:
        memory = self.memory_per_worker
        if memory is None and (there := self.node_memory()) is not None:
            memory = there / self.workers_of_node()
        return Resources(self.cores_per_worker, self.device, memory, self.task_walltime, self.silence)

    def build(self, pool: Pool) -> ParslExecutor:
        from psiflow_core.execution.blocks._htex import WorkerProcesses

        scheduler = self.scheduler(pool)
        if not isinstance(scheduler, Scheduler):
            given = type(scheduler).__name__
            raise OptionError(f"executor '{self.name}' has a {given} as its scheduler; return a Scheduler")
        return WorkerProcesses(pool, scheduler, self._layout(pool))

    def workers_of_node(self) -> int:
        if self.workers is not None:
            return self.workers
        if self.device == "cuda":
            return self.gpus
        by_cores, memory = self.node_cores() // self.cores_per_worker, self.node_memory()
        by_memory = by_cores if memory is None else int(memory / (self.memory_per_worker or 2.0))
        return max(1, min(by_cores, by_memory))

    def accelerators(self) -> list[str]:
        """Parsl's value of CUDA_VISIBLE_DEVICES in each worker; Parsl starts at most one worker per entry.

        Parsl reads a bare number as the number of a worker, and divides it by the workers per GPU of the machine.
        CUDA ends the list at the -1: exactly the GPU before it is visible.
        """
        if self.device != "cuda":
            return []
        return [f"{worker % max(1, self.gpus)},-1" for worker in range(self.workers_of_node())]

    def _layout(self, pool: Pool) -> Layout:
        nodes, workers = self.nodes_with_workers(), self.workers_of_node()
        return Layout(
            executor=self,
            size=Size(self.block_count(), self.kept_blocks(), nodes * workers, self.longest_idle()),
            workers=workers,
            on_every_node=nodes > 1,
            accelerators=self.accelerators(),
            cores=self.divided_cores(),
            threads=self.threads(),
            walltime=self.block_time(),
            remote=self.remote,
            shares_files=self.shares_files(),
            addresses=self.addresses(),
            encrypted=self.encrypted,
            guard=self.guard_python(),
            python=self.worker_python(pool),
            wrapped=lambda command: self.wrapped(command, pool),
        )
