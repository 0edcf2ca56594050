"""Blocks that are processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Collection, Mapping

from psiflow_core.execution.blocks.scheduler import Block, BlockState, Scheduler


class Processes(Scheduler):
    """Starts each block as a process of this machine, without a shell. It ends with its driver by its guard."""

    interval = 0.2

    def __init__(self) -> None:
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def submit(self, block: Block) -> str:
        with (block.folder / f"{block.name}.out").open("wb") as printed, self._lock:
            process = subprocess.Popen(
                block.command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env={**os.environ, **block.secrets},
            )
            self._started[str(process.pid)] = process
        return str(process.pid)

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        return {job: self._state(job) for job in ids}

    def cancel(self, ids: Collection[str]) -> None:
        for job in ids:
            with self._lock:  # its number cannot go to another process before it is waited for
                process = self._started.get(job)
                if process is not None and process.poll() is None:
                    process.send_signal(signal.SIGTERM)

    def find(self, tag: str) -> Mapping[str, str]:
        return {}  # none outlives its driver

    def _state(self, job: str) -> BlockState:
        with self._lock:
            process = self._started.get(job)
            code = 0 if process is None else process.poll()
        return BlockState("running") if code is None else BlockState("ended", code=code)
