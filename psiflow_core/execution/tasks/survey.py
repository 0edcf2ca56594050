"""A worker looks around: host, versions, cores, GPUs, MPI, scratch, the end of its block. For `psiflow doctor`."""

from __future__ import annotations

import math
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

import psutil
from pydantic import Field

from psiflow_core.execution.tasks.request import Grant, Request, Result, Work
from psiflow_core.identity import Place, Typed
from psiflow_core.processes import block, devices, ranks
from psiflow_core.processes.launchers import Ranks, every_launcher

PATIENCE = 60.0
"""How long a task waits for those that should run at the same time. [s]"""

SCRATCH = 64
"""How much is written to measure the speed of the scratch folder. [MiB]"""


class Scratch(Typed, strict=True):
    """The folder of temporary files."""

    folder: str
    free: float
    """[GiB]"""
    speed: float
    """Of writing. [MiB/s]"""


class Surveyed(Result):
    host: str
    process: int
    python: str
    """Its version."""
    prefix: str
    """Its environment."""
    versions: dict[str, str]
    """Of Parsl and psiflow."""
    cores: list[int]
    """The cores that the worker may use."""
    threads: int
    """Cores that the pool gives to one task."""
    began: float
    """When the task began. [s of the host's clock]"""
    ended: float
    age: float | None
    """How long ago its block's guard started when the task began; None without a guard. [s]"""
    left: float | None
    """Time until its block ends; None if it is not known. [s]"""
    mark: str
    """The name of a file that it has left in the task's folder."""
    failed_setup: str = ""
    """The last line of its block's set-up that has failed."""
    gpus: list[str] = Field(default_factory=list)
    ranks: list[Ranks] = Field(default_factory=list)
    scratch: Scratch | None = None


class SurveyRequest(Request):
    """Look around on a worker of any pool."""

    kind: ClassVar[str] = "survey"
    work: ClassVar[Work] = "label"
    result: ClassVar[type[Result]] = Surveyed

    of: Work = "label"
    """The kind of work whose pool is asked."""
    number: int = 0
    together: int = 1
    """How many of these tasks should run at once: each waits for the others."""
    meeting: Place | None = None
    """The folder in which they meet."""
    nodes: int = 1
    """Nodes of a task of this pool."""
    hold: float = 0.0
    """How long to stay at least. [s]"""
    closely: bool = False
    """Whether to look at GPUs, MPI and scratch, which takes some seconds."""

    @property
    def pool(self) -> Work:
        return self.of

    def run(self, grant: Grant) -> Surveyed:
        began, age = time.time(), _age()
        self._meet()
        cores = grant.resources.cores
        seen = Surveyed(
            host=socket.gethostname(),
            process=os.getpid(),
            python=sys.version.split()[0],
            prefix=sys.prefix,
            versions={name: _version(name) for name in ("parsl", "psiflow-core")},
            cores=ranks.cores(),
            threads=cores,
            began=began,
            ended=began,
            age=age,
            left=time_left if math.isfinite(time_left := block.remaining()) else None,
            mark=self._mark(),
            failed_setup=os.environ.get(block.FAILED_SETUP, ""),
        )
        if self.closely:
            closely = {"gpus": devices.visible(), "ranks": every_launcher(cores, self.nodes), "scratch": _scratch()}
            seen = seen.model_copy(update=closely)
        time.sleep(max(0.0, began + self.hold - time.time()))
        return seen.model_copy(update={"ended": time.time()})

    def _meet(self) -> None:
        """Wait until all that should run at once have begun; a missing one is seen by the times."""
        if self.meeting is None or self.together < 2:
            return
        self.meeting.mkdir(parents=True, exist_ok=True)
        (self.meeting / str(self.number)).touch()
        deadline = time.monotonic() + PATIENCE
        while len(os.listdir(self.meeting)) < self.together and time.monotonic() < deadline:
            time.sleep(0.1)

    def _mark(self) -> str:
        """Leave a file in the task's folder: the driver has to see it."""
        name = f"seen-{uuid.uuid4().hex[:8]}"
        if self.folder is not None:
            (self.folder / name).touch()
        return name


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _age() -> float | None:
    """How long ago the outermost guard of this process started. [s]"""
    guards = [one for one in psutil.Process().parents() if "psiflow_core.processes.guard" in _words(one)]
    return time.time() - float(guards[-1].create_time()) if guards else None


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # another user's
        return []


def _scratch() -> Scratch:
    """Where temporary files go, its free space, and its speed."""
    folder = tempfile.gettempdir()
    content = os.urandom(2**20)
    start = time.perf_counter()
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SCRATCH):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    return Scratch(folder=folder, free=shutil.disk_usage(folder).free / 2**30, speed=SCRATCH / seconds)
