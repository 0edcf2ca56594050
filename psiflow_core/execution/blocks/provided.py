"""A provider of Parsl as a scheduler."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from psiflow_core.errors import OptionError, PsiflowError
from psiflow_core.execution.blocks._said import last_words
from psiflow_core.execution.blocks.scheduler import Block, BlockState, Scheduler, SchedulerUnavailable, exports

if TYPE_CHECKING:
    from parsl.jobs.states import JobStatus
    from parsl.providers.base import ExecutionProvider


HARMLESS = re.compile(r"[\w@%+=:,./-]+", re.ASCII)

SCRIPTS = "~/.psiflow/scripts"
"""The folder for scripts of providers, if the pool's folder has a name that they cannot handle."""


class Provided(Scheduler):
    """Starts blocks by a provider of Parsl, which decides the size of a block and how it is launched.

    Most providers cannot tell a failed job from one that was ended, know only the jobs that they have submitted
    themselves, and give no reason why a job waits.

    Raises:
        OptionError: it is not a provider.
    """

    def __init__(self, provider: ExecutionProvider) -> None:
        from parsl.providers import LocalProvider
        from parsl.providers.base import ExecutionProvider

        if not isinstance(provider, ExecutionProvider):
            raise OptionError(f"a {type(provider).__name__} is not a provider of Parsl")
        self._provider = provider
        self._jobs: set[str] = set()
        self._lock = threading.RLock()  # providers are not made for several threads
        self.interval = 1.0 if isinstance(provider, LocalProvider) else float(provider.status_polling_interval)

    def submit(self, block: Block) -> str:
        with self._lock:
            if hasattr(self._provider, "script_dir"):
                self._provider.script_dir = str(_harmless(block.folder))
            try:
                job = self._submitted(block)
            except Exception as error:  # providers raise what the tools below them raise
                raise SchedulerUnavailable(last_words(str(error)) or type(error).__name__) from error
        if not job:
            raise SchedulerUnavailable("the provider of Parsl gave no job id")
        self._jobs.add(str(job))
        return str(job)

    def _submitted(self, block: Block) -> object:
        """The command is one line: a launcher of Parsl puts its words before the first line only."""
        command, provider = shlex.join(block.command), self._provider
        if not block.secrets:
            return provider.submit(command, 1, block.name)
        if not hasattr(provider, "worker_init"):
            words = [f"{name}={value}" for name, value in block.secrets.items()]
            return provider.submit(shlex.join(["env", *words, *block.command]), 1, block.name)
        own = provider.worker_init
        provider.worker_init = f"{own or ''}\n{exports(block.secrets)}"
        try:
            return provider.submit(command, 1, block.name)
        finally:
            provider.worker_init = own

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        known = [job for job in ids if job in self._provider.resources]
        with self._lock:
            try:
                found = dict(zip(known, self._provider.status(known), strict=True)) if known else {}
            except Exception as error:
                raise SchedulerUnavailable(last_words(str(error)) or type(error).__name__) from error
        return {job: _state(found[job]) if job in found else BlockState("ended") for job in ids}

    def cancel(self, ids: Collection[str]) -> None:
        if unknown := sorted(set(ids) - self._jobs):
            raise PsiflowError(
                f"a provider of Parsl cancels its own jobs only, and these are another driver's: {unknown}"
            )
        with self._lock:
            known = [job for job in ids if job in self._provider.resources]
            try:
                if known:
                    self._provider.cancel(known)
            except Exception as error:
                raise SchedulerUnavailable(last_words(str(error)) or type(error).__name__) from error

    def find(self, tag: str) -> Mapping[str, str]:
        return {}  # a provider knows its own jobs only


def _harmless(folder: Path) -> Path:
    """The folder, or another one if its name is special for a shell: Parsl's providers do not quote it."""
    if HARMLESS.fullmatch(str(folder)):
        return folder
    other = Path(SCRIPTS).expanduser() if HARMLESS.fullmatch(str(Path(SCRIPTS).expanduser())) else Path("/tmp")
    other.mkdir(parents=True, exist_ok=True)
    return other


def _state(status: JobStatus) -> BlockState:
    from parsl.jobs.states import JobState

    if not status.terminal:
        waits = status.state in (JobState.PENDING, JobState.HELD)
        return BlockState("waiting" if waits else "running", status.message or "")
    said = last_words(status.stderr_summary or status.stdout_summary or status.message or "")
    interrupted = status.state in (JobState.TIMEOUT, JobState.CANCELLED)
    return BlockState("ended", said, interrupted, status.exit_code)
