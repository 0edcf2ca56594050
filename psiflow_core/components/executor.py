"""Executors: the contract of a source of workers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from psiflow_core.components.component import Component, Resources
from psiflow_core.errors import OptionError
from psiflow_core.kinds import Kind

if TYPE_CHECKING:
    from parsl.executors.base import ParslExecutor


@dataclass(frozen=True)
class Pool:
    """The request to an executor for a group of equal workers."""

    label: str
    folder: Path
    """The folder for scripts and logs of this pool."""
    python: tuple[str, ...]
    """The command of its workers' Python, as separate words: an interpreter, or a container command before one."""
    driver: int
    """Process id of the driver: a worker whose driver has died must end."""
    isolated: bool = False
    """Whether that Python belongs to another environment: it must not inherit the driver's settings."""

    def __post_init__(self) -> None:
        if isinstance(self.python, str):
            raise OptionError(f"python={self.python!r}: give the words of the command, ({self.python!r},)")


class Executor(Component):
    """A source of workers. An executor of processes inherits from `psiflow_core.execution.blocks.Blocks`."""

    kind: ClassVar[Kind] = "executor"

    @abstractmethod
    def build(self, pool: Pool) -> ParslExecutor:
        """A new Parsl executor: the one of `Blocks`, or threads of the driver; pools refuse any other.

        Called once per pool; the objects are not reusable.
        """

    def shares_files(self) -> bool:
        """Whether its workers see the driver's files, at the same paths."""
        return True

    @abstractmethod
    def slots(self) -> int:
        """Tasks that can run at once when all workers are there."""

    @abstractmethod
    def resources(self) -> Resources:
        """The limits of one task."""
