"""What a pool of worker processes has to know of its executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psiflow_core.components import Executor
from psiflow_core.execution.blocks._scaling import Size

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Layout:
    """Where the workers of a pool run, how many there are, and how they are started."""

    executor: Executor
    """For the record of jobs."""
    size: Size
    workers: int
    """Workers of a node."""
    on_every_node: bool
    """Whether workers are started on every node of a block."""
    accelerators: list[str]
    """The GPU of each worker of a node; empty without GPUs."""
    cores: int
    """Cores of a node that its workers divide among them; 0 if they do not."""
    threads: int
    """Threads that numerical libraries of a worker may start."""
    walltime: float | None
    """Wall time of a block, if known. [s]"""
    remote: bool
    """Whether blocks run on other machines, where they may outlive the driver."""
    shares_files: bool
    """Whether workers see the driver's files."""
    addresses: tuple[str, ...]
    """The driver's addresses for workers, which try them all."""
    encrypted: bool
    guard: str
    """The Python of the guard of a block's workers."""
    python: tuple[str, ...]
    """The words of the command of the workers' Python."""
    wrapped: Callable[[tuple[str, ...]], tuple[str, ...]]
    """The command that starts workers, under another one, a container's for instance."""
