"""The base of executors whose blocks run elsewhere: as jobs of a batch system, in containers, or on a cloud."""

from __future__ import annotations

import socket
import sys
from typing import Annotated, Any, ClassVar, Self

import psutil
from pydantic import BeforeValidator, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Pool, Resources
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks.base import Blocks
from psiflow_core.execution.blocks.times import Seconds

WORD = r"^[\w.@+:/-]*$"
"""The pattern of names that a scheduler reads as one word."""


def lines(given: object) -> object:
    """Lines, given as one text or one by one."""
    return tuple(given.splitlines()) if isinstance(given, str) else given


def one_line_each(given: tuple[str, ...]) -> tuple[str, ...]:
    for line in given:
        if len(line.splitlines()) > 1 or not line.isprintable():
            raise ValueError(f"{line!r} holds a line break or a control character")
    return given


Lines = Annotated[tuple[str, ...], BeforeValidator(lines)]


class Batch(Blocks):
    """Workers in blocks elsewhere. A subclass implements `scheduler`, and adds its own options.

    Blocks are submitted while tasks want more workers than there are, and given back when they are idle.
    """

    remote: ClassVar[bool] = True

    blocks: PositiveInt = 1
    """The most blocks at once, waiting and running."""
    min_blocks: NonNegativeInt = 0
    """Blocks that are kept while there are no tasks."""
    nodes: PositiveInt = 1
    """Nodes of a block."""
    nodes_per_task: PositiveInt = 1
    """Nodes of a task: 1, or all nodes of a block for an engine that runs under MPI on several nodes."""
    cores: PositiveInt = 1
    """Cores of a node."""
    gpus: NonNegativeInt = 0
    """GPUs of a node. With GPUs, `device` is cuda unless it is given."""
    memory: PositiveFloat | None = None
    """Memory of a node; by default the scheduler's own default. [GiB]"""
    walltime: Seconds | None = None
    """Wall time of a block: HH:MM:SS, D-HH:MM:SS or seconds; by default the scheduler's own default. [s]"""
    task_walltime: Seconds | None = None
    """Largest wall time of a task; a longer task is ended. As the wall time of a block. [s]"""
    silence: Seconds | None = 600.0
    """How long a task may use no processor time; after that it counts as hung, and is ended. [s]"""
    idle: Seconds = 60.0
    """A block without tasks is given back after this time. [s]"""
    setup: Lines = ()
    """Lines of shell that are run on a node before its workers start, `module load cp2k` for instance."""
    directives: Lines = ()
    """More lines for the head of the job script, or more settings, in the scheduler's own language."""
    container: str = ""
    """The image of a container in which workers run, by Apptainer; empty for none."""
    binds: tuple[str, ...] = ()
    """Folders that the container sees, as SOURCE or SOURCE:TARGET, in addition to the pool's folder if it is shared."""
    python: str = ""
    """The Python of workers: a path, or a name, on the nodes or in the container; by default that of the driver."""
    shared: bool = True
    """Whether nodes see the driver's files, at the same paths. Without a shared file system, the files of tasks are
    carried to the nodes and back, over an encrypted connection. Software has to be there, see `python`."""
    address: str = ""
    """The driver's address for workers; by default the addresses of all network interfaces of its host are tried."""

    @model_validator(mode="before")
    @classmethod
    def _device(cls, given: Any) -> Any:
        asks = isinstance(given, dict) and given.get("gpus") and "device" not in given
        return {**given, "device": "cuda"} if asks else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        one_line_each(self.directives)
        if not self.encrypted:
            raise ValueError("encrypted=False: anyone on the network could send tasks to workers; leave it out")
        if self.min_blocks > self.blocks:
            raise ValueError(f"min_blocks={self.min_blocks} is more than blocks={self.blocks}")
        if self.nodes_per_task not in (1, self.nodes):
            raise ValueError(f"nodes_per_task={self.nodes_per_task}: give 1 or nodes={self.nodes}")
        if self.device == "cuda" and not self.gpus:
            raise ValueError("device='cuda' needs gpus")
        if self.nodes_per_task > 1 and (self.workers or 1) > 1:
            raise ValueError(f"workers={self.workers}: a block has one worker if a task has {self.nodes} nodes")
        if self.cores_per_worker * (self.workers or 1) > self.cores and self.device == "cpu":
            asked = f"{self.workers or 1} workers with {self.cores_per_worker} cores each"
            raise ValueError(f"{asked} share cores={self.cores} of a node: raise cores")
        if self.memory and (self.memory_per_worker or 0.0) * (self.workers or 1) > self.memory:
            asked = f"{self.workers or 1} workers with {self.memory_per_worker:g} GiB each"
            raise ValueError(f"{asked} share memory={self.memory:g} GiB of a node: raise memory")
        return self

    def block_count(self) -> int:
        return self.blocks

    def kept_blocks(self) -> int:
        return self.min_blocks

    def nodes_with_workers(self) -> int:
        return self.nodes if self.nodes_per_task == 1 else 1

    def workers_of_node(self) -> int:
        return 1 if self.nodes_per_task > 1 else super().workers_of_node()

    def node_cores(self) -> int:
        return self.cores

    def node_memory(self) -> float | None:
        return self.memory

    def longest_idle(self) -> float:
        return self.idle

    def shares_files(self) -> bool:
        return self.shared

    def block_time(self) -> float | None:
        return self.walltime

    def resources(self) -> Resources:
        limits = super().resources()
        if self.nodes_per_task == 1:
            return limits
        return limits._replace(cores=self.cores * self.nodes, memory=None)  # the guard sees the first node alone

    def divided_cores(self) -> int:
        return self.cores if self.workers_of_node() > 1 else 0

    def threads(self) -> int:
        return self.cores if self.nodes_per_task > 1 else self.cores_per_worker

    def addresses(self) -> tuple[str, ...]:
        if self.address:
            try:
                return (socket.gethostbyname(self.address),)
            except OSError as error:
                raise OptionError(f"address={self.address!r}: this host cannot find it: {error.strerror}") from error
        return own_addresses()

    def guard_python(self) -> str:
        return self.python or sys.executable

    def worker_python(self, pool: Pool) -> tuple[str, ...]:
        return pool.python if pool.isolated or not self.python else (self.python,)

    def wrapped(self, command: tuple[str, ...], pool: Pool) -> tuple[str, ...]:
        """The command in its container. An executor whose scheduler starts containers itself gives it back as it is."""
        if not self.container:
            return command
        own = (str(pool.folder.parent),) if self.shared else ()
        binds = [word for bind in (*own, *self.binds) for word in ("--bind", bind)]
        return ("apptainer", "exec", *(["--nv"] if self.gpus else []), *binds, self.container, *command)


def own_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this host's network interfaces that are up; loopback only if there is no other."""
    state = psutil.net_if_stats()
    every = [
        one.address
        for name, addresses in psutil.net_if_addrs().items()
        for one in addresses
        if one.family == socket.AF_INET and (name not in state or state[name].isup)
    ]
    return tuple(one for one in every if not one.startswith("127.")) or ("127.0.0.1",)
