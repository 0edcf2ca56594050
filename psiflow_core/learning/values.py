"""What the value of a task has to look like before the driver builds on it: a worker, or a disk, may give anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from psiflow_core.learning.campaign import Task, TaskKind

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Value(BaseModel):
    """Plain data, as it is: nothing is converted."""

    model_config = ConfigDict(strict=True)


class Weights(Value):
    path: str
    digest: str


class Labelled(Value):
    cached: bool


class Trained(Value):
    model: Weights
    steps: NonNegativeInt
    errors: dict[str, Finite]
    history: list[dict[str, Finite]]


class Met(Value):
    """A candidate."""

    structure: str
    deviation: float
    step: int


class Failing(Value):
    type: str
    reason: str
    message: str
    trace: str
    plugin: str
    where: str


class Ended(Value):
    """A walker whose segment has an end."""

    walker: int
    file: str
    digest: str
    steps: NonNegativeInt
    stopped: str | None
    finished: bool
    averages: dict[str, Finite]
    trajectory: str | None = None
    candidate: Met | None = None


class Lost(Value):
    """A walker whose segment failed."""

    walker: int
    failure: Failing
    candidate: Met | None = None


class Sampled(Value):
    walkers: list[Ended | Lost]


class Scored(Value):
    deviations: list[float]


class Evaluated(Value):
    file: str
    digest: str


VALUES: Mapping[TaskKind, type[Value]] = {
    "label": Labelled,
    "train": Trained,
    "sample": Sampled,
    "score": Scored,
    "evaluate": Evaluated,
}


def malformed(task: Task, value: object) -> str | None:
    """What is wrong with what a task is said to have come to; None if it can be built on."""
    try:
        found = VALUES[task.kind].model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    if isinstance(found, Sampled) and [one.walker for one in found.walkers] != task.about["walkers"]:
        return "it tells of other walkers than those that were moved"
    if isinstance(found, Scored) and len(found.deviations) != len(task.about["candidates"]):
        return "it tells of another number of candidates than those that were looked at"
    return None
