"""Runs a command, and ends it with all its children when the driver has died; ends tasks that take too much.

Parsl's interchange and worker pools outlive a driver that is killed. Each is started as
``python -m psiflow_core.guard --driver PID --born TIME --pool FOLDER [--cores N] -- COMMAND…``: the guard looks
for the driver twice a second, and at the leases of tasks (`psiflow_core.leases`). What a dead worker leaves
behind comes to the guard as its own, and is ended. It imports nothing but psutil, for it is started with every pool.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import psutil

from psiflow_core.leases import PLACE, Leases, complain, end

PERIOD = 0.5
"""Seconds between two looks."""

DROPPED = ("PYTHONPATH", "PYTHONHOME")
"""Environment variables that would bring the driver's packages into another environment."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def born(pid: int) -> float:
    """When a process started, to tell it from a later one with the same number. [s]

    Since the machine started, where the system tells that, so that nobody who sets the clock makes it another
    process; elsewhere since the epoch.

    Raises:
        psutil.NoSuchProcess: it is gone.
    """
    if sys.platform != "linux":
        return float(psutil.Process(pid).create_time())
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5); the first two end with the bracket


def command(driver: int, pool: Path, cores: int | None = None, isolated: bool = False) -> list[str]:
    """The words to put before a command that must not outlive the driver.

    Args:
        pool: the folder of the pool; `guarding` finds the guard by it.
        cores: threads that numerical libraries may start.
        isolated: the command's Python is another environment's, and must not find the driver's packages.
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
    if isolated:
        words += ["--isolated"]
    return [*words, "--"]


def lives(pid: int, birth: float) -> bool:
    """Whether that very process still runs."""
    try:
        return abs(born(pid) - birth) < 1.0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty once it is gone."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def end_family(process: subprocess.Popen[Any]) -> None:
    """End a process with all that descend from it."""
    end(family(process.pid))
    process.wait()


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
    parser.add_argument("--isolated", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED or not options.isolated}
    return _run(words, options.driver, options.born, options.cores, environment)


def _run(words: list[str], driver: int, birth: float, cores: int | None, environment: dict[str, str]) -> int:
    if cores is not None:
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(cores)))
    if os.getpid() != os.getpgrp():
        os.setsid()  # what is sent to the driver's process group is the driver's to answer
    _adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="psiflow-guard-", ignore_cleanup_errors=True) as place:
        child = subprocess.Popen(words, env={**environment, PLACE: place})
        signal.signal(signal.SIGTERM, lambda number, frame: end(family(child.pid)))
        return _watch(child, Leases(Path(place)), driver, birth)


def _watch(child: subprocess.Popen[bytes], leases: Leases, driver: int, birth: float) -> int:
    """Until the command ends, or its driver does."""
    while True:
        try:
            code = child.wait(PERIOD)
        except subprocess.TimeoutExpired:
            try:
                _look(child, leases, driver, birth)
            except Exception:  # a guard that has died guards nobody: the next look comes all the same
                complain(traceback.format_exc())
        else:
            end(_descendants())  # workers whose manager was killed would live on
            return code


def _look(child: subprocess.Popen[bytes], leases: Leases, driver: int, birth: float) -> None:
    if not lives(driver, birth):
        end(_descendants())
        return
    end(leases.broken(family(child.pid)), patience=1.0)
    end(_orphans(child.pid))


def _adopt_orphans() -> None:
    """Become the parent of whatever a dead worker leaves behind: its shells, and the ranks of its engine."""
    if sys.platform == "linux":
        subreaper = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
        ctypes.CDLL(None, use_errno=True).prctl(subreaper, 1, 0, 0, 0)


def _orphans(child: int) -> list[psutil.Process]:
    return [one for process in psutil.Process().children() if process.pid != child for one in family(process.pid)]


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _guards(process: psutil.Process, pool: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "psiflow_core.guard" in words and pool in words


if __name__ == "__main__":
    sys.exit(main())
