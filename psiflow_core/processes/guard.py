"""The guard: it runs a command, ends it with all its children when the driver has died, and ends excessive tasks.

Parsl's interchange and worker pools outlive a driver that is killed. So each of them is started as ``python -m
psiflow_core.processes.guard --driver PID --born TIME --host NAME --pool FOLDER [--name NAME] [--cores N] -- COMMAND…``:
the guard checks twice a second whether the driver lives and whether tasks keep their limits
(`psiflow_core.processes.limits`). It adopts the children of a dead worker, and ends them. The output of all these
processes is kept in the pool's folder. Where it cannot see the driver, on another machine or in a container, the
command must end by itself. The guard is started with every pool, so it imports no package but psutil.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from psiflow_core.processes.block import BEGAN, ENDS, Ending, scheduled
from psiflow_core.processes.limits import PLACE, Awake, RunningTasks, complain, end
from psiflow_core.processes.temporary import short_folder, short_name

PERIOD = 0.5
"""Time between two checks. [s]"""

SAID = "said"
"""The folder in a pool's folder with the output of its processes, one file each."""

DRIVER = "PSIFLOW_DRIVER"
"""The environment variable that marks all descendants of a driver: its number, its birth, its table of processes."""

UNTOUCHED = "SPT_NOENV"
"""The environment variable that keeps `setproctitle`, which Parsl uses, from overwriting the visible environment."""

DROPPED = ("PYTHONPATH", "PYTHONHOME")
"""Environment variables that would bring the driver's packages into another environment."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def born(pid: int) -> float:
    """When a process started, which distinguishes it from a later process with the same number. [s]

    On Linux the time is counted from the start of the machine, so that setting the clock does not change it; on
    other systems from the epoch.

    Raises:
        psutil.NoSuchProcess: the process has ended.
    """
    if sys.platform != "linux":
        return float(psutil.Process(pid).create_time())
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5); the first two end with the bracket


def process_table() -> str:
    """The identity of the table of processes that this process sees: a process number means nothing in another one.

    Hosts may share a name, and so may containers on one host. Without a process file system it is the host's name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def command(
    driver: int,
    pool: Path,
    name: str | None = None,
    cores: int | None = None,
    isolated: bool = False,
    *,
    python: str = sys.executable,
    walltime: float | None = None,
    grace: float = 0.0,
) -> list[str]:
    """The words that start a guard; a command that must not outlive the driver follows them.

    Args:
        driver: the driver's process number.
        pool: the folder of the pool; `guarding` finds the guard by it.
        name: the name of the file for the command's output; without a name, its output is not redirected.
        cores: how many threads numerical libraries may start.
        isolated: whether the command's Python belongs to another environment and must not find the driver's packages.
        python: the guard's own Python.
        walltime: how long the block lasts, from the guard's start; None if that is not known. [s]
        grace: how long tasks may go on after SIGTERM; 0 ends them at once. [s]
    """
    words = [
        python,
        "-m",
        "psiflow_core.processes.guard",
        "--driver",
        str(driver),
        "--born",
        f"{born(driver):.3f}",
        "--table",
        process_table(),
    ]
    words += ["--pool", str(pool)]
    if name is not None:
        words += ["--name", name]
    if cores is not None:
        words += ["--cores", str(cores)]
    if isolated:
        words += ["--isolated"]
    if walltime is not None:
        words += ["--walltime", str(walltime)]
    words += ["--grace", str(grace)]
    return [*words, "--"]


def lives(pid: int, birth: float) -> bool:
    """Whether the process with this number and birth still runs."""
    try:
        return abs(born(pid) - birth) < 1.0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants; empty once it has ended."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def end_family(process: subprocess.Popen[Any]) -> None:
    """End a process and its descendants."""
    end(family(process.pid))
    process.wait()


def guarding(pool: Path) -> list[psutil.Process]:
    """The guards of a pool on this machine, with all processes that they guard."""
    guards = [process.pid for process in psutil.process_iter() if _guards(process, str(pool))]
    return [process for pid in guards for process in family(pid)]


def mark_driver() -> None:
    """Mark all future descendants of this process as a driver's, also those without a guard."""
    os.environ[DRIVER] = f"{os.getpid()} {born(os.getpid()):.3f} {process_table()}"
    os.environ[UNTOUCHED] = "1"


def orphans() -> list[psutil.Process]:
    """This user's processes on this machine that descend from a driver that has died."""
    driven = {process: driver for process in psutil.process_iter() if (driver := _driver_of(process)) is not None}
    alive = {driver for driver in set(driven.values()) if lives(*driver)}
    drivers = {number for number, _ in alive} | {os.getpid()}
    return [process for process, driver in driven.items() if driver not in alive and process.pid not in drivers]


def main() -> int:
    parser = argparse.ArgumentParser(prog="psiflow_core.processes.guard")
    parser.add_argument("--driver", type=int, required=True)
    parser.add_argument("--born", type=float, required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--name")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--isolated", action="store_true")
    parser.add_argument("--walltime", type=float)
    parser.add_argument("--grace", type=float, default=0.0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED or not options.isolated}
    environment |= {DRIVER: f"{options.driver} {options.born} {options.table}", UNTOUCHED: "1"}
    if options.cores is not None:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(options.cores))
    if os.getpid() != os.getpgrp():
        os.setsid()  # signals to the driver's process group are for the driver to answer
    if options.name is not None:
        _redirect_output(options.pool, options.name)
    here = options.table == process_table()
    began = time.time()
    ends = scheduled(began, options.walltime, os.environ)
    if math.isfinite(ends):
        environment |= {BEGAN: str(began), ENDS: str(ends)}
    return _run(
        words, environment, lambda: not here or lives(options.driver, options.born), (began, ends), options.grace
    )


def _run(
    words: list[str], environment: dict[str, str], driven: Callable[[], bool], lasts: tuple[float, float], grace: float
) -> int:
    _adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="psiflow-guard-", dir=short_folder(), ignore_cleanup_errors=True) as place:
        environment |= {PLACE: place, **short_name(Path(place))}
        child = subprocess.Popen(words, env=environment, preexec_fn=_die_with_guard)
        tasks = RunningTasks(Path(place), Awake(2 * PERIOD))
        ending = Ending(Path(place), tasks, *lasts, grace)
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(ending, "asked", True))
        return _watch(child, tasks, ending, driven)


def _watch(child: subprocess.Popen[bytes], tasks: RunningTasks, ending: Ending, driven: Callable[[], bool]) -> int:
    """Guard the command until it ends, or its driver does."""
    while True:
        try:
            code = child.wait(PERIOD)
        except subprocess.TimeoutExpired:
            try:
                _look(child, tasks, ending, driven)
            except Exception:  # the guard must not die: the next check comes all the same
                complain(traceback.format_exc())
        else:
            end(_descendants())  # workers whose manager was killed would live on
            return code


def _look(child: subprocess.Popen[bytes], tasks: RunningTasks, ending: Ending, driven: Callable[[], bool]) -> None:
    if ending.over() or not driven():
        end(_descendants())
        return
    end(tasks.excessive(family(child.pid)), patience=1.0)
    end(_orphans(child.pid))


def _redirect_output(pool: Path, name: str) -> None:
    """Redirect the output of this process and its children into a file, unless the file cannot be made."""
    try:
        (pool / SAID).mkdir(parents=True, exist_ok=True)
        file = os.open(
            pool / SAID / f"{name}.{socket.gethostname()}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
    except OSError as error:
        print(f"the output of {name} is not kept in {pool}: {error}", file=sys.stderr)
        return
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _die_with_guard() -> None:
    """Make the system kill this process when the guard dies: without a guard, nothing would end it."""
    if sys.platform == "linux":
        parent_death = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None, use_errno=True).prctl(parent_death, signal.SIGKILL, 0, 0, 0)


def _adopt_orphans() -> None:
    """Become the parent of the processes that a dead worker leaves: its shells, and the ranks of its engine."""
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
    return "psiflow_core.processes.guard" in words and pool in words


def _driver_of(process: psutil.Process) -> tuple[int, float] | None:
    """Number and birth of the driver, on this machine, of which a process is a descendant or a guard."""
    try:
        words, driver = process.cmdline(), process.environ().get(DRIVER, "").split()
        if "psiflow_core.processes.guard" in words:
            driver = [words[words.index(flag) + 1] for flag in ("--driver", "--born", "--table")]
        if process.status() == psutil.STATUS_ZOMBIE or len(driver) != 3 or driver[2] != process_table():
            return None
        return int(driver[0]), float(driver[1])
    except (psutil.Error, OSError, ValueError, IndexError):  # it is another user's, has ended, or is not of psiflow
        return None


if __name__ == "__main__":
    sys.exit(main())
