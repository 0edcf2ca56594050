"""The executor `parsl`: blocks by a provider of Parsl that a site already has."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import Batch, Provided, Scheduler
from psiflow_core.texts import said_by

if TYPE_CHECKING:
    from parsl.providers.base import ExecutionProvider

WAYS = "write module:name or /path/to/file.py:name"


class ParslProvider(Batch):
    """Workers in blocks that a provider of Parsl starts, `SlurmProvider` for instance.

    The provider decides how a block is asked for and launched: nodes, wall time, set-up lines. Pools start and end
    blocks; `blocks` sets their number, not the provider's `max_blocks`. `cores`, `gpus` and `memory` say what a node
    has, so that workers fit on it. A provider cannot find the jobs of a driver that was killed, and most cannot tell
    a failed job from one that was ended: where there is an executor of psiflow for a scheduler, prefer it.
    """

    name: ClassVar[str] = "parsl"

    provider: str = Field(min_length=3)
    """The provider: `module:name`, or `/path/to/file.py:name`. It is a provider, a `HighThroughputExecutor` or a
    `Config` with one executor, of which the provider is taken, or a function without arguments that returns one."""

    @field_validator("provider")
    @classmethod
    def _found(cls, given: str) -> str:
        place, _, name = given.rpartition(":")
        absolute = str(Path(place).expanduser().absolute()) if place.endswith(".py") else place
        load(f"{absolute}:{name}")
        return f"{absolute}:{name}"

    @model_validator(mode="after")
    def _decided_by_the_provider(self) -> Self:
        for option in ("setup", "directives"):
            if getattr(self, option):
                raise ValueError(f"{option} has no effect on a provider of Parsl: use its worker_init and its options")
        nodes = load(self.provider).nodes_per_block
        if nodes != self.nodes:
            raise ValueError(f"nodes={self.nodes}, and the provider has nodes_per_block={nodes}: give nodes={nodes}")
        return self

    def block_time(self) -> float | None:
        """That of the provider, unless it is given. [s]"""
        if self.walltime is not None:
            return self.walltime
        clock = re.fullmatch(r"(\d+):(\d+):(\d+)", str(getattr(load(self.provider), "walltime", "")))
        return 3600.0 * int(clock[1]) + 60 * int(clock[2]) + int(clock[3]) if clock else None

    def scheduler(self, pool: Pool) -> Scheduler:
        return Provided(load(self.provider))


def load(given: str) -> ExecutionProvider:
    """A provider of its own for each call: providers know the jobs that they have submitted.

    Raises:
        ValueError: there is none.
    """
    from parsl.config import Config
    from parsl.providers.base import ExecutionProvider

    place, _, name = given.rpartition(":")
    found = _attribute(place, name)
    if callable(found) and not isinstance(found, type):
        found = found()
    if isinstance(found, Config):
        if len(found.executors) != 1:
            names = ", ".join(str(one.label) for one in found.executors)
            raise ValueError(f"{given} is a Config with the executors {names}; name one of their providers")
        found = found.executors[0]
    found = getattr(found, "provider", found)
    if not isinstance(found, ExecutionProvider):
        raise ValueError(f"{given} is a {type(found).__name__}, not a provider of Parsl, nor an executor with one")
    own = copy.copy(found)
    own.resources = {}
    return own


def _attribute(place: str, name: str) -> object:
    if not place or not name.isidentifier():
        raise ValueError(WAYS)
    try:
        module = _file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:  # a site's file can raise anything
        raise ValueError(f"{place} cannot be imported ({type(error).__name__}: {said_by(error)}); {WAYS}") from error
    if not hasattr(module, name):
        raise ValueError(f"{place} has no '{name}'")
    return getattr(module, name)


def _file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no file of Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
