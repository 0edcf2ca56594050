"""The options of the executor."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from psiflow_core.execution.blocks import WORD, Batch

RESOURCES = r"^[\w.]+=[\w.@+/-]+(:[\w.]+=[\w.@+/-]+)*$|^$"
"""Resources of a chunk: `cpu_type=rome:scratch=100gb`."""


class PBSProOptions(Batch):
    """The job of a block. `cores`, `gpus` and `memory` become one chunk of the select statement for each node."""

    queue: str = Field("", pattern=WORD)
    """The queue (`qsub -q`); by default the server's default queue."""
    account: str = Field("", pattern=WORD)
    """The account to be charged (`qsub -A`)."""
    project: str = Field("", pattern=WORD)
    """The project of the job (`qsub -P`)."""
    chunk: str = Field("", pattern=RESOURCES)
    """More resources of each node's chunk in the select statement, such as `cpu_type=rome:scratch=100gb`."""
    place: str = Field("scatter", pattern=r"^\w+(:[\w=]+)*$")
    """Placement of the chunks (`qsub -l place`): `scatter` for one chunk a host, `scatter:excl` for whole hosts."""

    @model_validator(mode="after")
    def _by_pbsdsh(self) -> Self:
        if self.nodes > 1 and self.nodes_per_task == 1 and not self.shared:
            raise ValueError(f"nodes={self.nodes}: pbsdsh hands no keys on; without a shared file system give nodes=1")
        return self
