"""MPI ranks of a program on the node of its worker, next to those of other workers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

SCHEDULERS = re.compile(
    r"SLURM_|PBS_|LSB_|LSF_|PE_HOSTFILE$|COBALT_|FLUX_|PMI_|PMIX_|PALS_|PRTE_(?!MCA)|OMPI_(?!MCA_|ALLOW_)|HYDRA_|MPI_LOCAL"
)
"""Variables that tell Open MPI, MPICH and Intel MPI of an allocation, or that they are ranks of another program."""

SETTINGS: Mapping[str, str] = {
    # Open MPI binds the ranks of every job to the first cores: the jobs of two workers would share them.
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    # It counts physical cores, while a pool may count hardware threads. The second line of each pair is for Open MPI 5.
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    # If a rank does not start, or dies, srun lets the others wait for it until the job's end.
    "SLURM_KILL_BAD_EXIT": "1",
}
"""Settings for Open MPI, and for srun."""


def cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def hiding(environment: Mapping[str, str]) -> list[str]:
    """Words that start a program without the scheduler's variables; empty if there are no such variables.

    The pool has given a worker its cores on its node. If MPI sees the scheduler, it counts tasks instead, and a
    block has one task per node: `mpirun -n 2` refuses to start, or starts the second rank on another worker's node. A
    single rank within a step of `srun` looks for the scheduler's process manager and aborts.
    """
    names = sorted(name for name in environment if SCHEDULERS.match(name))
    return ["env", *(word for name in names for word in ("-u", name))] if names else []
