"""The base of executors whose blocks a service starts from an image: pods, and instances of a cloud."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from psiflow_core.components import Pool
from psiflow_core.execution.blocks.batch import Batch
from psiflow_core.execution.blocks.times import Seconds


class FromImage(Batch):
    """Blocks of one node each, whose software is in an image. By default they see no files of the driver."""

    unit: ClassVar[str] = "block"
    """A block, in the words of the service."""

    python: str = Field("python3", min_length=1)
    """The Python of workers in the image or in the container."""
    shared: bool = False
    """Whether workers see the driver's files, at the same paths, because volumes or lines of `setup` mount them.
    Otherwise the files of tasks are carried to the nodes and back, over an encrypted connection."""
    walltime: Seconds = 86400.0
    """Wall time of a block: HH:MM:SS, D-HH:MM:SS or seconds. The block ends then, also if the driver has died. [s]"""

    @model_validator(mode="after")
    def _one_node(self) -> Self:
        if self.nodes != 1:
            raise ValueError(f"nodes={self.nodes}: a block is one {self.unit}; ask for more blocks")
        return self

    def wrapped(self, command: tuple[str, ...], pool: Pool) -> tuple[str, ...]:
        return command  # the service starts the container


class OnInstances(FromImage):
    """Blocks that are instances of a cloud."""

    unit: ClassVar[str] = "instance"

    @model_validator(mode="after")
    def _only_setup(self) -> Self:
        if self.directives:
            raise ValueError("directives have no meaning for instances of a cloud; give setup")
        return self
