"""Runs a command, and ends it with all its children when the driver has died; ends tasks that take too much.

Parsl's interchange and worker pools outlive a driver that is killed. Each is started as ``python -m
psiflow_core.guard --driver PID --born TIME --host NAME --pool FOLDER [--name NAME] [--cores N] -- COMMAND…``: the guard
looks for the driver twice a second, and at the leases of tasks (`psiflow_core.leases`). What a dead worker leaves
behind comes to the guard as its own, and is ended. What all of them say is kept in the pool's folder. On another
machine than the driver's it cannot look for the driver: there the command has to end by itself.
It imports nothing but psutil, for it is started with every pool.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from psiflow_core.leases import PLACE, Awake, Leases, complain, end

PERIOD = 0.5
"""Seconds between two looks."""

SAID = "said"
"""The folder in a pool's folder that holds what its processes said, a file each."""

DRIVER = "PSIFLOW_DRIVER"
"""The environment variable by which all that descend from a driver are known: its number, birth and machine."""

UNTOUCHED = "SPT_NOENV"
"""The environment variable that keeps `setproctitle`, which Parsl uses, from overwriting what others see of it."""

SOCKETS = 75
"""Characters of a TMPDIR in which sockets can be made: a socket's path has 107, and Python's ends in 32 of its own."""

SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Where a short name for a long TMPDIR may be, where the TMPDIR itself is too long."""

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


def command(
    driver: int, pool: Path, name: str | None = None, cores: int | None = None, isolated: bool = False
) -> list[str]:
    """The words to put before a command that must not outlive the driver.

    Args:
        pool: the folder of the pool; `guarding` finds the guard by it.
        name: the command's, under which what it says is kept in the folder; without, it says it where it would.
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
        "--host",
        socket.gethostname(),
    ]
    words += ["--pool", str(pool)]
    if name is not None:
        words += ["--name", name]
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


def mark_driver() -> None:
    """Make all that descend from this process known as a driver's: also what no guard sees to."""
    os.environ[DRIVER] = f"{os.getpid()} {born(os.getpid()):.3f} {socket.gethostname()}"
    os.environ[UNTOUCHED] = "1"


def orphans() -> list[psutil.Process]:
    """This user's processes on this machine that descend from a driver that has died."""
    told = {process: driver for process in psutil.process_iter() if (driver := _driver_of(process)) is not None}
    alive = {driver for driver in set(told.values()) if lives(*driver)}
    drivers = {number for number, _ in alive} | {os.getpid()}
    return [process for process, driver in told.items() if driver not in alive and process.pid not in drivers]


def main() -> int:
    parser = argparse.ArgumentParser(prog="psiflow_core.guard")
    parser.add_argument("--driver", type=int, required=True)
    parser.add_argument("--born", type=float, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--name")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--isolated", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED or not options.isolated}
    environment |= {DRIVER: f"{options.driver} {options.born} {options.host}", UNTOUCHED: "1"}
    if options.cores is not None:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(options.cores))
    if os.getpid() != os.getpgrp():
        os.setsid()  # what is sent to the driver's process group is the driver's to answer
    if options.name is not None:
        _keep_what_is_said(options.pool, options.name)
    here = options.host == socket.gethostname()
    return _run(words, environment, lambda: not here or lives(options.driver, options.born))


def _run(words: list[str], environment: dict[str, str], driven: Callable[[], bool]) -> int:
    _adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="psiflow-guard-", dir=_short(), ignore_cleanup_errors=True) as place:
        environment |= {PLACE: place, **_short_temporary(Path(place))}
        child = subprocess.Popen(words, env=environment, preexec_fn=_die_with_guard)
        signal.signal(signal.SIGTERM, lambda number, frame: end(family(child.pid)))
        return _watch(child, Leases(Path(place), Awake(2 * PERIOD)), driven)


def _watch(child: subprocess.Popen[bytes], leases: Leases, driven: Callable[[], bool]) -> int:
    """Until the command ends, or its driver does."""
    while True:
        try:
            code = child.wait(PERIOD)
        except subprocess.TimeoutExpired:
            try:
                _look(child, leases, driven)
            except Exception:  # a guard that has died guards nobody: the next look comes all the same
                complain(traceback.format_exc())
        else:
            end(_descendants())  # workers whose manager was killed would live on
            return code


def _look(child: subprocess.Popen[bytes], leases: Leases, driven: Callable[[], bool]) -> None:
    if not driven():
        end(_descendants())
        return
    end(leases.broken(family(child.pid)), patience=1.0)
    end(_orphans(child.pid))


def _keep_what_is_said(pool: Path, name: str) -> None:
    """Send what this process and its children say into a file; where there is no room for one, as before."""
    try:
        (pool / SAID).mkdir(parents=True, exist_ok=True)
        file = os.open(
            pool / SAID / f"{name}.{socket.gethostname()}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
    except OSError as error:
        print(f"what {name} says is not kept in {pool}: {error}", file=sys.stderr)
        return
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _short() -> str | None:
    """A folder whose name is short enough for sockets; None where the usual one is, or none is."""
    if len(tempfile.gettempdir()) <= SOCKETS:
        return None
    return next((folder for folder in SHORT if os.access(folder, os.W_OK | os.X_OK)), None)


def _short_temporary(place: Path) -> dict[str, str]:
    """A short name for the folder of temporary files, where its own is too long; they stay where they belong."""
    if len(tempfile.gettempdir()) <= SOCKETS or len(str(place / "tmp")) > SOCKETS:
        return {}
    (place / "tmp").symlink_to(tempfile.gettempdir(), target_is_directory=True)
    return {"TMPDIR": str(place / "tmp")}


def _die_with_guard() -> None:
    """Have this process killed when the guard is: a command without its guard is seen to by nobody."""
    if sys.platform == "linux":
        parent_death = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None, use_errno=True).prctl(parent_death, signal.SIGKILL, 0, 0, 0)


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


def _driver_of(process: psutil.Process) -> tuple[int, float] | None:
    """Number and birth of the driver of this machine from which a process descends, or for which it guards."""
    try:
        words, told = process.cmdline(), process.environ().get(DRIVER, "").split()
        if "psiflow_core.guard" in words:
            told = [words[words.index(flag) + 1] for flag in ("--driver", "--born", "--host")]
        if process.status() == psutil.STATUS_ZOMBIE or len(told) != 3 or told[2] != socket.gethostname():
            return None
        return int(told[0]), float(told[1])
    except (psutil.Error, OSError, ValueError, IndexError):  # it is another user's, has ended, or is no psiflow's
        return None


if __name__ == "__main__":
    sys.exit(main())
