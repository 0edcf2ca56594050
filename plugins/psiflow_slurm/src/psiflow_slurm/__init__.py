"""SLURM as an executor: workers in jobs of a cluster."""

from __future__ import annotations

from psiflow_core.components import Executor
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_executors() -> list[type[Executor]]:
    from psiflow_slurm.executor import Slurm

    return [Slurm]
