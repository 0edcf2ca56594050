"""Runs a command, and ends it with all its children when the driver has died.

Parsl's interchange and worker pools outlive a driver that is killed. Each is started as
``python -m psiflow_core.guard --driver PID --born TIME --pool FOLDER [--cores N] -- COMMAND…``: the guard looks
for the driver twice a second. It imports nothing but psutil, for it is started with every pool.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import psutil

PERIOD = 0.5
"""Seconds between two looks."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def born(pid: int) -> float:
    """When a process started [s since the epoch]: tells it from a later one with the same number."""
    return float(psutil.Process(pid).create_time())


def command(driver: int, pool: Path, cores: int | None = None) -> list[str]:
    """The words to put before a command that must not outlive the driver.

    Args:
        pool: the folder of the pool; `guarding` finds the guard by it.
        cores: threads that numerical libraries may start.
    """
    words = [
        sys.executable,
        "-m",
        "psiflow_core.guard",
        "--driver",
        str(driver),
        "--born",
        f"{born(driver):.3f}",
    ]
    words += ["--pool", str(pool)]
    if cores is not None:
        words += ["--cores", str(cores)]
    return [*words, "--"]


def lives(pid: int, birth: float) -> bool:
    """Whether that very process still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - birth) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(processes: list[psutil.Process], patience: float = 2.0) -> None:
    """Ask processes to end, and kill those that do not within ``patience`` seconds."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(processes, timeout=patience)
    for process in stubborn:
        _signal(process, signal.SIGKILL)


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty once it is gone."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def guarding(pool: Path) -> list[psutil.Process]:
    """The guards of a pool on this machine, with all that they guard."""
    guards = [process.pid for process in psutil.process_iter() if _guards(process, str(pool))]
    return [process for pid in guards for process in family(pid)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="psiflow_core.guard")
    parser.add_argument("--driver", type=int, required=True)
    parser.add_argument("--born", type=float, required=True)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--cores", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    return _run(words, options.driver, options.born, options.cores)


def _run(words: list[str], driver: int, birth: float, cores: int | None) -> int:
    environment = dict(os.environ)
    if cores is not None:
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(cores)))
    if os.getpid() != os.getpgrp():
        os.setsid()  # what is sent to the driver's process group is the driver's to answer
    child = subprocess.Popen(words, env=environment)

    def stop(number: int, frame: FrameType | None) -> None:
        end(family(child.pid))

    signal.signal(signal.SIGTERM, stop)
    guarded = family(child.pid)
    while True:
        try:
            code = child.wait(PERIOD)
        except subprocess.TimeoutExpired:
            guarded = family(child.pid)
            if not lives(driver, birth):
                end(guarded)
        else:
            end(guarded)  # workers whose manager was killed would live on
            return code


def _guards(process: psutil.Process, pool: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "psiflow_core.guard" in words and pool in words


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    sys.exit(main())
