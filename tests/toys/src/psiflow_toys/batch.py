"""A batch system whose nodes are this machine: its queue is a folder, and files in it say what goes wrong.

A job is a process of its own session, which outlives its driver as a real job does. `hold` in the queue's folder lets
jobs wait, `down` makes the scheduler unavailable, `refuse` lets it refuse jobs, and `unanswered` lets it take one job
without an answer, each with the words in the file.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

import psutil

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import (
    Batch,
    Block,
    BlockState,
    Scheduler,
    SchedulerUnavailable,
    SubmissionRefused,
)
from psiflow_core.files import write_json


class ToyBatch(Batch):
    """Workers in jobs on this machine."""

    name: ClassVar[str] = "toy-batch"

    queue: str
    """The folder of the queue."""

    def scheduler(self, pool: Pool) -> Scheduler:
        return Queue(Path(self.queue), self.setup)


class Queue(Scheduler):
    """Every job is a folder `jobs/NUMBER` with what is known of it."""

    interval = 0.2

    def __init__(self, folder: Path, setup: tuple[str, ...] = ()) -> None:
        self._folder, self._setup = folder, setup
        (folder / "jobs").mkdir(parents=True, exist_ok=True)

    def submit(self, block: Block) -> str:
        self._answer()
        with (self._folder / "submissions").open("a") as told:
            told.write(f"{block.name} avoid={','.join(block.avoid)}\n")
        if words := self._says("refuse"):
            raise SubmissionRefused(words)
        number = len(list((self._folder / "jobs").iterdir())) + 1
        job = self._folder / "jobs" / str(number)
        job.mkdir()
        output = block.folder / f"{block.name}.out"
        lines = [*self._setup, f"exec {shlex.join(block.command)}"]
        (job / "script").write_text("\n".join(lines))
        write_json(job / "job.json", {"name": block.name, "output": str(output)})
        if self._says("lost"):  # the job is there, and its driver dies before it knows that
            os.kill(os.getpid(), signal.SIGKILL)
        if words := self._says("unanswered"):  # the job is there, and the answer does not come
            (self._folder / "unanswered").unlink()
            raise SchedulerUnavailable(words)
        return str(number)

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        self._answer()
        self._start()
        return {job: self._state(self._folder / "jobs" / job) for job in ids}

    def cancel(self, ids: Collection[str]) -> None:
        self._answer()
        for number in ids:
            job = self._folder / "jobs" / number
            if self._state(job).phase != "ended":
                (job / "cancelled").touch()
            if process := self._process(job):
                os.killpg(process.pid, signal.SIGTERM)

    def find(self, tag: str) -> Mapping[str, str]:
        self._answer()
        living = [job for job in self._jobs() if self._state(job).phase != "ended"]
        names = {str(json.loads((job / "job.json").read_text())["name"]): job.name for job in living}
        return {name: job for name, job in names.items() if name.startswith(tag)}

    def _jobs(self) -> list[Path]:
        return [job for job in (self._folder / "jobs").iterdir() if (job / "job.json").exists()]

    def _start(self) -> None:
        """Start the jobs that may run."""
        if self._says("hold"):
            return
        for job in self._jobs():
            if self._state(job).phase == "waiting":
                with Path(json.loads((job / "job.json").read_text())["output"]).open("wb") as printed:
                    words = ["bash", str(job / "script")]
                    process = subprocess.Popen(words, stdout=printed, stderr=printed, start_new_session=True)
                (job / "pid").write_text(str(process.pid))

    def _state(self, job: Path) -> BlockState:
        if (job / "cancelled").exists():
            return BlockState("ended", "CANCELLED", interrupted=True)
        if not (job / "pid").exists():
            return BlockState("waiting", self._says("hold"))
        return BlockState("running") if self._process(job) else BlockState("ended")

    def _process(self, job: Path) -> psutil.Process | None:
        try:
            process = psutil.Process(int((job / "pid").read_text()))
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except (psutil.NoSuchProcess, FileNotFoundError, ValueError):
            return None

    def _says(self, name: str) -> str:
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            return ""

    def _answer(self) -> None:
        if words := self._says("down"):
            with (self._folder / "asked").open("a") as told:
                told.write(f"{time.time()}\n")
            raise SchedulerUnavailable(words)
