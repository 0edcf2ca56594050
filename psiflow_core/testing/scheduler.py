"""What holds for every scheduler whose jobs run shell commands: batch systems, and stand-ins for them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from psiflow_core.execution.blocks import Block, BlockState, Scheduler

TAG = "psiflow-a1"
"""The tag of the driver of these tests."""


class SchedulerContract(ABC):
    """Jobs run their command as it is, their ends are told apart, and they are found and cancelled."""

    patience: ClassVar[float] = 60.0
    """How long a job may take to start or to end. [s]"""
    unknown: ClassVar[str] = "4711"
    """An id that the scheduler has never given."""

    @abstractmethod
    def scheduler(self, setup: str = "") -> Scheduler:
        """A scheduler whose jobs start at once, with these lines of set-up."""

    @abstractmethod
    def held(self) -> Scheduler:
        """A scheduler whose jobs wait."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """For scripts and output; a shell would take its name apart."""
        folder = tmp_path / "jobs of a pool"
        folder.mkdir()
        return folder

    def test_a_job_runs_its_command_after_the_lines_of_set_up(self, folder: Path) -> None:
        queue = self.scheduler("export HALF=forty-\nexport OTHER=two")
        state = self.ended(queue, queue.submit(block(folder, "echo $HALF$OTHER 'a  b' > result")))
        assert (state.code, state.interrupted) == (0, False), state
        assert (folder / "result").read_text() == "forty-two a  b\n"

    def test_a_command_that_fails_has_its_exit_code(self, folder: Path) -> None:
        queue = self.scheduler()
        state = self.ended(queue, queue.submit(block(folder, "exit 3")))
        assert (state.code, state.interrupted) == (3, False), state

    def test_a_job_that_waits_says_why(self, folder: Path) -> None:
        queue = self.held()
        job = queue.submit(block(folder, "true"))
        self.until(lambda: bool(queue.states([job])[job].words))
        assert queue.states([job])[job].phase == "waiting"

    @pytest.mark.parametrize("waits", [True, False])
    def test_a_cancelled_job_was_interrupted(self, folder: Path, waits: bool) -> None:
        queue = self.held() if waits else self.scheduler()
        job = queue.submit(block(folder, "touch begun; sleep 600"))
        self.until(lambda: waits or (folder / "begun").exists())
        queue.cancel([job])
        assert self.ended(queue, job).interrupted
        queue.cancel([job])  # it has ended already

    def test_jobs_are_found_by_the_tag_of_their_driver(self, folder: Path) -> None:
        queue = self.held()
        names = f"{TAG}-0", f"{TAG}-1", "psiflow-b2-0"
        jobs = {name: queue.submit(block(folder, "true", name)) for name in names}
        assert queue.find(f"{TAG}-") == {name: jobs[name] for name in names[:2]}
        assert queue.find("psiflow-c3-") == {}
        queue.cancel([jobs[f"{TAG}-0"]])
        self.until(lambda: set(queue.find(f"{TAG}-")) == {f"{TAG}-1"})
        queue.cancel(list(jobs.values()))

    def test_a_job_that_is_no_longer_known_has_ended(self, folder: Path) -> None:
        queue = self.held()
        job = queue.submit(block(folder, "true"))
        states = queue.states([job, self.unknown])
        assert (states[job].phase, states[self.unknown].phase) == ("waiting", "ended")
        queue.cancel([job, self.unknown])
        assert self.ended(queue, job).phase == "ended"

    def ended(self, queue: Scheduler, job: str) -> BlockState:
        """The state of a job at its end."""
        self.until(lambda: queue.states([job])[job].phase == "ended")
        return queue.states([job])[job]

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this holds, with patience."""
        deadline = time.monotonic() + self.patience
        while not holds():
            assert time.monotonic() < deadline, f"not within {self.patience:.0f} s"
            time.sleep(0.1)


def block(folder: Path, command: str, name: str = f"{TAG}-0") -> Block:
    """A block that runs a command of the shell in its folder."""
    return Block(name, ("sh", "-c", f'cd "$0" && {{ {command}; }}', str(folder)), folder)
