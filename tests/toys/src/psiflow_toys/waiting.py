"""Waiting for what takes as long as the machine needs: a condition, the end of processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable

import psutil

PATIENCE = 120.0
"""Far longer than a loaded machine takes; only a test that fails waits so long. [s]"""
DEATH = 30.0
"""Processes that were ended are gone by then, and those that are left alone are not. [s]"""


def wait_until(
    condition: Callable[[], object], during: subprocess.Popen[str] | None = None, patience: float = PATIENCE
) -> None:
    """Wait for a condition, which must come while this process runs."""
    deadline = time.monotonic() + patience
    while not condition():
        if during is not None and during.poll() is not None:
            raise AssertionError(f"the process ended too early; it said: {during.communicate()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"this has not come within {patience:.0f} s")
        time.sleep(0.05)


def survivors(processes: Iterable[psutil.Process | int], patience: float = DEATH) -> list[psutil.Process]:
    """Those of the processes that still run after so long.

    One that has ended stays in the list of processes until its parent, or process 1, asks for its exit code; neither
    need be quick. It holds nothing any longer, and is no survivor.
    """
    left = [one for number in processes if (one := _process(number)) is not None]
    deadline = time.monotonic() + patience
    while (left := [one for one in left if runs(one)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; nor has its number gone to another process."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _process(given: psutil.Process | int) -> psutil.Process | None:
    try:
        return psutil.Process(given) if isinstance(given, int) else given
    except psutil.NoSuchProcess:
        return None
