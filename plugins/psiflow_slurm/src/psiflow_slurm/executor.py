"""The executor `slurm`."""

from __future__ import annotations

from typing import ClassVar

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import Scheduler
from psiflow_slurm.options import SlurmOptions


class Slurm(SlurmOptions):
    """Workers in jobs of a SLURM cluster, by its own commands: `sbatch`, `squeue`, `scontrol`, `sacct`, `scancel`.

    A block is one job. It is submitted while tasks wait for workers, and cancelled when it is idle or the driver ends.
    A node of a job has one SLURM task for each core: `mpirun` within a task of psiflow has as many slots as it has
    cores, and `srun --exact` takes its share of them. SLURM's options are those of `sbatch`; an unknown partition or
    a limit that is exceeded is an error with SLURM's own words.
    """

    name: ClassVar[str] = "slurm"
    program: ClassVar[str] = "sbatch"

    def scheduler(self, pool: Pool) -> Scheduler:
        from psiflow_slurm._engine import SlurmJobs

        return SlurmJobs(self)
