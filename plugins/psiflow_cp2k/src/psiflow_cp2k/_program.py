"""CP2K as a process: started with the pool's cores, ended with all its children when its time or memory is up."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from psiflow_core.components import Resources
from psiflow_core.errors import ReferenceFailed

if TYPE_CHECKING:
    from psiflow_cp2k.reference import CP2K

PERIOD = 0.2
"""Time between two looks at what CP2K uses. [s]"""
SHARE = 0.95
"""Of the pool's memory: at more than this CP2K is ended here, before the pool's guard ends the whole worker."""
GIB = 2**30
HERE = "mpirun -n {ranks}"
"""Starts ranks on this node, with any MPI."""
SCHEDULERS = re.compile(
    r"SLURM_|PBS_|LSB_|LSF_|PE_HOSTFILE$|COBALT_|FLUX_|PMI_|PMIX_|PALS_|PRTE_(?!MCA)|OMPI_(?!MCA_|ALLOW_)|HYDRA_|MPI_LOCAL"
)
"""By what Open MPI, MPICH and Intel MPI know that they are in an allocation, or are ranks of another program."""
OPEN_MPI = {
    # It binds the ranks of every job to the first cores, so that the jobs of two workers would share them,
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    # and counts whole cores, where a pool may count their threads. The second line of each is for Open MPI 5.
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def run(options: CP2K, folder: Path, resources: Resources, deadline: float | None = None) -> int:
    """Run `label.inp` of a folder to `label.out`; what else is said goes to `label.err`.

    Args:
        deadline: when CP2K must have ended, on the clock of `time.monotonic`. [s]

    Returns:
        The exit code. It is 0 for much that went wrong: read the output.

    Raises:
        ReferenceFailed: "wall time", "memory", or "engine" if CP2K cannot be started.
    """
    with (folder / "label.err").open("wb") as errors:
        try:
            process = subprocess.Popen(
                words(options, resources.cores),
                cwd=folder,
                env=_environment(options),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                process_group=0,
                preexec_fn=_die_with_parent(os.getpid()),
            )
        except OSError as error:
            raise ReferenceFailed(f"CP2K cannot be started ({error}); set command or before") from error
        try:
            return _watch(process, folder, resources.memory, deadline)
        finally:
            _end(process, options.patience)


def words(options: CP2K, cores: int) -> list[str]:
    """The command line: `before` in a shell where there is such, then `launch` where there are ranks, `command`."""
    ranks = max(1, cores // options.threads)
    told = HERE if options.launch is None else options.launch
    launch = shlex.split(told.format(ranks=ranks, threads=options.threads)) if ranks > 1 else []
    command = [*launch, *shlex.split(options.command), "-i", "label.inp", "-o", "label.out"]
    if ranks == 1 or options.launch is None:
        command = [*_hiding(os.environ), *command]
    return ["bash", "-c", f"{options.before}\nexec {shlex.join(command)}"] if options.before else command


def _hiding(environment: Mapping[str, str]) -> list[str]:
    """Words that start a program without the scheduler's variables; none where there are none.

    The pool has given this worker its cores on this node. MPI that sees the scheduler counts in tasks instead, of
    which a block is given one a node: `mpirun -n 2` refuses to start, or starts the second rank on another worker's
    node; a single rank, in a step of `srun`, looks for the scheduler's process manager and aborts.
    """
    names = sorted(name for name in environment if SCHEDULERS.match(name))
    return ["env", *(word for name in names for word in ("-u", name))] if names else []


def _environment(options: CP2K) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(options.threads), "OPENBLAS_NUM_THREADS": "1"}
    data = {"CP2K_DATA_DIR": options.data} if options.data else {}
    return {**os.environ, **threads, **OPEN_MPI, **data}


def _watch(process: subprocess.Popen[bytes], folder: Path, memory: float | None, deadline: float | None) -> int:
    while True:
        try:
            return process.wait(PERIOD)
        except subprocess.TimeoutExpired:
            if deadline is not None and time.monotonic() > deadline:
                raise ReferenceFailed(f"CP2K ran out of wall time; see {folder}", "wall time") from None
            used = _memory() if memory is not None else 0.0
            if memory is not None and used > SHARE * memory:
                raise ReferenceFailed(
                    f"CP2K used {used:.2f} of the {memory:.2f} GiB that its pool allows; "
                    f"give the pool more, or more ranks fewer threads; see {folder}",
                    "memory",
                ) from None


def _memory() -> float:
    """What this process and its children have for themselves, as the pool's guard counts it. [GiB]"""
    total, here = 0.0, psutil.Process()
    for process in [here, *here.children(recursive=True)]:
        try:
            found = process.memory_info()
        except psutil.Error:
            continue
        total += (found.rss - getattr(found, "shared", 0)) / GIB
    return total


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    """End the process with all its children, if it has not ended: MPI puts ranks into groups of their own."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        if child.is_running():
            child.kill()


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """What makes Linux end a new process when its parent dies, even of SIGKILL."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork, where locks may be held
    set_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>

    def ask() -> None:
        prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
