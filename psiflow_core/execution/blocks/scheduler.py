"""The contract of a source of blocks: a batch system, a container service, or a cloud.

A scheduler is synchronous and keeps no state of its own about jobs: their ids are recorded by its caller, so that a
later driver can ask for them and cancel them.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from psiflow_core.errors import PsiflowError
from psiflow_core.processes.block import FAILED_SETUP


class SubmissionRefused(PsiflowError):
    """The scheduler will never accept this job, with its own words: a wrong partition, a limit that is exceeded."""


class SchedulerUnavailable(PsiflowError):
    """The scheduler did not answer, or cannot take the job now: the same request may succeed later."""


@dataclass(frozen=True)
class Block:
    """One block to be started."""

    name: str
    """Unique. It begins with the tag of its driver, by which `Scheduler.find` finds it."""
    command: tuple[str, ...]
    """The words of the command that starts the workers of one node."""
    folder: Path
    """For its script and its output, in files whose names begin with the block's; it exists. Where there is a shared
    file system, nodes see it."""
    on_every_node: bool = True
    """Whether the command is run once on every node of the block, or on its first node alone."""
    avoid: tuple[str, ...] = ()
    """The names of hosts on which it must not run, if the scheduler can do that."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment for its command, which nobody else may read: keys, where nodes see no files of the
    driver."""


@dataclass(frozen=True)
class BlockState:
    """The state of a block, as its scheduler knows it."""

    phase: Literal["waiting", "running", "ended"]
    words: str = ""
    """The scheduler's own words: why it waits, or how it ended."""
    interrupted: bool = False
    """Whether the scheduler ended it: wall time, preemption, a node that failed, a cancelled job."""
    code: int | None = None
    """The exit code, if it ended by itself and the scheduler knows it."""


def exports(variables: Mapping[str, str]) -> str:
    """Lines of shell that set variables of the environment."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def set_up(lines: Sequence[str]) -> list[str]:
    """The user's lines of set-up for bash. A line that fails does not end the block, and is noted."""
    if not lines:
        return []
    told = 'echo "psiflow: a line of setup has failed: $BASH_COMMAND" >&2'
    return [f"trap '{told}; export {FAILED_SETUP}=\"$BASH_COMMAND\"' ERR", *lines, "trap - ERR"]


class Scheduler(ABC):
    """Starts blocks, and knows what became of them. All methods may be called from several threads.

    Every method raises `SchedulerUnavailable` with the scheduler's own words if it does not answer in time.
    """

    interval: float = 10.0
    """The shortest time between two polls. [s]"""

    @abstractmethod
    def submit(self, block: Block) -> str:
        """Start a block; returns its id at once.

        Raises:
            SubmissionRefused: it will never be accepted.
        """

    @abstractmethod
    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        """The states of jobs. One that the scheduler no longer knows has ended: every id has a state."""

    @abstractmethod
    def cancel(self, ids: Collection[str]) -> None:
        """End jobs, waiting or running. Those that have ended already are no error."""

    @abstractmethod
    def find(self, tag: str) -> Mapping[str, str]:
        """The ids, by name, of this user's jobs that have not ended and whose names begin with a tag."""
