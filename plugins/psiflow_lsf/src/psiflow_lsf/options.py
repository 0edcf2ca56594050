"""The options of the executor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from psiflow_core.execution.blocks import WORD, Batch


class LSFOptions(Batch):
    """The job of a block. `cores` of each node become slots, `memory` and `requirement` the resource requirement."""

    queue: str = Field("", pattern=WORD)
    """The queue (`bsub -q`); by default the cluster's default queue."""
    project: str = Field("", pattern=WORD)
    """The project to be charged (`bsub -P`)."""
    user_group: str = Field("", pattern=WORD)
    """The user group of the job (`bsub -G`)."""
    application: str = Field("", pattern=WORD)
    """The application profile (`bsub -app`)."""
    requirement: str = Field("", pattern=r'^[^"\\`$]*$')
    """One more resource requirement (`bsub -R`), such as `select[model==EPYC]`."""
    memory_counts: Literal["host", "slot"] = "host"
    """Whether `rusage[mem=…]` counts for a host, or for each slot (`RESOURCE_RESERVE_PER_TASK=Y` of a cluster)."""
    gpu_mode: Literal["shared", "exclusive_process"] = "shared"
    """The mode of GPUs (`bsub -gpu`). Workers that share a GPU need `shared`."""
