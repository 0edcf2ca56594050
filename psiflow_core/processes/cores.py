"""The cores of a worker: two tasks on one node must not share cores.

Parsl can pin its workers, but it also sets variables of OpenMP (`GOMP_CPU_AFFINITY`) by which every rank of an MPI
program binds its first thread to the same core. So a worker restricts itself, and its programs inherit that. Open MPI
alone would leave it: by default it binds the ranks of every `mpirun` to the first cores of the node.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path

GRANTED = "PSIFLOW_NODE_CORES"
"""The environment variable with the number of cores that the block has on a node; set if its workers divide them."""

RANK, COUNT = "PARSL_WORKER_RANK", "PARSL_WORKER_COUNT"
"""Environment variables of Parsl: the number of a worker on its node, and of all of them."""

UNBOUND = {"OMPI_MCA_hwloc_base_binding_policy": "none", "PRTE_MCA_hwloc_default_binding_policy": "none"}
"""The settings by which Open MPI 4 and 5 leave ranks on the cores of their worker."""

HARDWARE_THREADS = 2
"""A node may show each of its cores so often."""


def share(rank: int, count: int, allowed: Sequence[int], granted: int) -> list[int]:
    """The cores of one of several workers: neighbours, and no core twice. Empty if it cannot be told.

    Args:
        allowed: the cores that the system lets this process use.
        granted: the number of cores that the batch system has granted. On a node that does not confine its jobs, more
            are allowed, and another job may use the first ones as well.
    """
    if count < 2 or not count <= len(allowed) <= HARDWARE_THREADS * granted:
        return []
    cores = sorted(allowed)
    each = len(cores) // count
    return cores[rank * each : (rank + 1) * each]


@functools.cache
def take() -> tuple[int, ...]:
    """Restrict this process to its own cores, if it is a worker that divides a node; returns them."""
    granted = os.environ.get(GRANTED)
    if granted is None or RANK not in os.environ or not hasattr(os, "sched_setaffinity"):
        return ()
    rank, count = int(os.environ[RANK]), int(os.environ[COUNT])
    cores = share(rank, count, sorted(os.sched_getaffinity(0)), int(granted))
    if cores:
        for thread in Path("/proc/self/task").iterdir():  # numerical libraries may have started theirs
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread.name), cores)
        os.environ |= {name: value for name, value in UNBOUND.items() if name not in os.environ}
    return tuple(cores)
