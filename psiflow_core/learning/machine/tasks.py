"""The tasks of a campaign: a task is named by its subject, and its request follows from subject and state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field

from psiflow_core.execution.tasks.evaluate import EvaluationRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.request import Work
from psiflow_core.execution.tasks.sample import SamplingRequest
from psiflow_core.execution.tasks.score import ScoreRequest
from psiflow_core.execution.tasks.train import TrainingRequest
from psiflow_core.identity import Typed

TaskKind = Literal["label", "train", "sample", "score", "evaluate"]

WORK: Mapping[TaskKind, Work] = {
    cast(TaskKind, one.kind): one.work
    for one in (LabelRequest, TrainingRequest, SamplingRequest, ScoreRequest, EvaluationRequest)
}
"""The pool of each kind of task."""


class Labelling(Typed):
    """Label a candidate."""

    kind: Literal["label"] = "label"
    candidate: int


class MemberTraining(Typed):
    """Train a member of a generation."""

    kind: Literal["train"] = "train"
    generation: int
    member: int
    final: bool
    """Whether this generation is the last; it may be trained longer."""
    upto: tuple[int, ...] | None = None
    """The training candidates of the generation; None except for its first member."""


class Sampling(Typed):
    """Move walkers by a segment."""

    kind: Literal["sample"] = "sample"
    walkers: tuple[int, ...]
    generation: int
    """The generation of the model that moves them."""
    progress: int
    """Number of labels within the budget so far: ramps follow it."""


class Scoring(Typed):
    """Score candidates in the queue with a newer model."""

    kind: Literal["score"] = "score"
    generation: int
    candidates: tuple[int, ...]


class Evaluating(Typed):
    """Compare every generation up to this one with all labels."""

    kind: Literal["evaluate"] = "evaluate"
    generation: int


About = Annotated[Labelling | MemberTraining | Sampling | Scoring | Evaluating, Field(discriminator="kind")]


class Task(Typed):
    """A unit of work with its name."""

    id: str
    about: About

    @property
    def kind(self) -> TaskKind:
        return self.about.kind


def label_task(candidate: int) -> Task:
    """The task that labels a candidate."""
    return Task(id=f"label-{candidate:05d}", about=Labelling(candidate=candidate))


def training_task(generation: int, member: int, final: bool, upto: tuple[int, ...] | None = None) -> Task:
    """The task that trains a member of a generation."""
    about = MemberTraining(generation=generation, member=member, final=final, upto=upto)
    return Task(id=f"train-{generation:03d}-{member}", about=about)
