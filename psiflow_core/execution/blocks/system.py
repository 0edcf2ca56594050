"""Batch systems: job scripts, and the commands of a site, which are run without a shell and within a deadline."""

from __future__ import annotations

import os
import shlex
import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from psiflow_core.execution.blocks._said import last_words
from psiflow_core.execution.blocks.batch import Batch, one_line_each
from psiflow_core.execution.blocks.scheduler import (
    Block,
    Scheduler,
    SchedulerUnavailable,
    SubmissionRefused,
    exports,
    set_up,
)
from psiflow_core.files import replacing


@dataclass(frozen=True)
class Answer:
    """What a command of a site printed."""

    code: int
    """Its exit code."""
    output: str
    errors: str

    @property
    def words(self) -> str:
        """Its last words, for people."""
        return last_words(self.errors) or last_words(self.output) or f"exit code {self.code}"


class BatchSystem(Scheduler):
    """Jobs of a batch system, by its commands.

    A subclass implements `head`, `submission`, `job`, `refused`, `states`, `cancel` and `find`; the last three by
    `ask`. It implements `launch` if it has blocks of several nodes.
    """

    deadline: float = 60.0
    """How long a command of the site may take. [s]"""
    reads_script: ClassVar[bool] = False
    """Whether the command of submission reads the script from its standard input, as `bsub` does."""

    def __init__(self, options: Batch) -> None:
        self.options = options

    @abstractmethod
    def head(self, block: Block) -> Sequence[str]:
        """The lines at the head of a job script: `#SBATCH --nodes=2`; those of the option `directives` follow.

        Standard output and standard error belong into `output(block)`. A scheduler reads these lines itself, without
        a shell. What it does not accept as one word, a subclass has to quote or to refuse.
        """

    @abstractmethod
    def submission(self, script: Path, block: Block) -> Sequence[str]:
        """The words of the command that submits a script."""

    @abstractmethod
    def job(self, answer: Answer) -> str:
        """The id of the job in the answer to a successful submission; empty if there is none."""

    @abstractmethod
    def refused(self, answer: Answer) -> bool:
        """Whether a failed submission will always fail: a wrong partition; not a controller that is down."""

    def directive(self, line: str) -> str:
        """A line of the option `directives`, as it stands in the script."""
        return line

    def launch(self, command: Sequence[str]) -> Sequence[str]:
        """The words of a command that runs a command once on every node of the block."""
        raise NotImplementedError(f"{type(self).__name__} has no blocks of several nodes")

    def output(self, block: Block) -> Path:
        """The file for the output and the errors of a block's script."""
        return block.folder / f"{block.name}.out" if self.options.shared else Path(os.devnull)

    def script(self, block: Block) -> str:
        """The job script. The user's lines of set-up are shell; everything else is quoted."""
        several = block.on_every_node and self.options.nodes > 1
        command = self.launch(block.command) if several else block.command
        head = [*self.head(block), *map(self.directive, self.options.directives)]
        place = [f"cd -- {shlex.quote(str(block.folder))}"] if self.options.shared else []
        body = [
            *place,
            *exports(block.secrets).splitlines(),
            *set_up(self.options.setup),
            f"exec {shlex.join(command)}",
        ]
        return "\n".join(["#!/bin/bash", *one_line_each(tuple(head)), "", *body, ""])

    def submit(self, block: Block) -> str:
        script, file = self.script(block), block.folder / f"{block.name}.sh"
        with replacing(file, durable=False) as unfinished:
            unfinished.touch(mode=0o700)
            unfinished.write_bytes(script.encode())
        answer = self.ask(self.submission(file, block), script if self.reads_script else "")
        if answer.code != 0:
            kind = SubmissionRefused if self.refused(answer) else SchedulerUnavailable
            raise kind(answer.words)
        if not (job := self.job(answer)):
            raise SchedulerUnavailable(f"there is no job id in its answer: {answer.words}")
        return job

    def ask(self, command: Sequence[str], given: str = "") -> Answer:
        """Run a command of the site.

        Args:
            given: its standard input.

        Raises:
            SchedulerUnavailable: it did not answer within the deadline.
            SubmissionRefused: there is no such command on this host.
        """
        try:
            done = subprocess.run(
                list(command), input=given, capture_output=True, text=True, errors="replace", timeout=self.deadline
            )
        except subprocess.TimeoutExpired as error:
            said = last_words(_text(error.stderr) or _text(error.stdout))
            words = f"{command[0]} did not answer within {self.deadline:g} s"
            raise SchedulerUnavailable(f"{words}: {said}" if said else words) from None
        except (FileNotFoundError, PermissionError) as error:
            raise SubmissionRefused(f"{command[0]} cannot be started on this host: {error.strerror}") from error
        except OSError as error:  # there may be room for another process later
            raise SchedulerUnavailable(f"{command[0]} cannot be started now: {error.strerror}") from error
        return Answer(done.returncode, done.stdout, done.stderr)


def _text(output: str | bytes | None) -> str:
    """The output of a command that was ended: bytes, even if text was asked for."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
