"""The 14 kinds of event in the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError

from psiflow_core.errors import CampaignError
from psiflow_core.execution.failures import Failure
from psiflow_core.execution.tasks.sample import Met
from psiflow_core.identity import Typed
from psiflow_core.learning.machine.candidates import Origin
from psiflow_core.learning.machine.generations import Predictions, TrainedMember
from psiflow_core.learning.machine.sessions import Clock, Home
from psiflow_core.learning.machine.tasks import Task
from psiflow_core.structures import Plain


class Happening(Typed):
    """The content of an event."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Event:
    """An event with its place in the journal."""

    number: int
    time: float
    """When it was written. [s since the epoch]"""
    what: Happening

    @property
    def kind(self) -> str:
        return self.what.kind


class Opened(Happening):
    """A session of the driver begins."""

    kind: ClassVar[str] = "opened"
    configuration: Plain
    """The request: settings, components and structures."""
    versions: dict[str, str]
    """The versions of the computing distributions."""
    context: dict[str, Plain]
    """The executor of each pool."""
    homes: tuple[Home, ...]
    slots: dict[str, int]
    """Tasks that each pool runs at once."""
    host: str
    clock: Clock
    closing: str | None
    """Why sampling and labelling have ended, if they have."""
    damaged: str | None = None
    """The renamed file of a damaged journal."""


class Proposal(Typed):
    """A candidate from a source other than a segment of a walker."""

    structure: str
    """Content hash."""
    origin: Origin
    file: str | None = None
    """Its label, if it has one already."""
    deviation: float | None = None
    """The committee's largest force spread. [eV/Å]"""
    error: dict[str, float] | None = None
    """The model's error, for a walker's candidate with a label."""
    suspicious: bool = False
    discarded: bool = False
    reason: str = ""


class Proposed(Happening):
    """Structures become candidates."""

    kind: ClassVar[str] = "proposed"
    candidates: tuple[Proposal, ...]


class Started(Happening):
    """A task was given to a worker."""

    kind: ClassVar[str] = "started"
    task: Task


class Adopted(Happening):
    """A given model becomes the first generation."""

    kind: ClassVar[str] = "adopted"
    members: tuple[TrainedMember, ...]


class TaskEnded(Happening):
    """A task has ended, with a result or a failure."""

    task: str
    seconds: float
    """Wall time on the worker."""
    worker: str
    """Host and process; empty if no worker was used."""


class Labelled(TaskEnded):
    """A candidate has its label."""

    kind: ClassVar[str] = "labelled"
    candidate: int
    file: str
    """The file of the label, relative to the campaign's folder if it is inside."""
    error: dict[str, float] | None
    """The error of the model that moved its walker."""
    suspicious: bool
    """Whether a person should look at it."""
    reset: bool
    """Whether the model's error is so large that the walker starts over."""
    discard: bool
    """Whether the error is too large for the label to be used for training."""
    cached: bool
    """Whether the label was in the store already."""


class Trained(TaskEnded):
    """A member of a generation is trained."""

    kind: ClassVar[str] = "trained"
    generation: int
    member: int
    result: TrainedMember


class FailedTask(Typed):
    """A failure, and the folder of its task."""

    failure: Failure
    folder: str
    """The task's folder, relative to the campaign's."""
    unkept: str | None = None
    """Why the task's request could not be written into its folder."""


class Moved(Typed):
    """A walker has moved by a segment."""

    walker: int
    file: str
    """Its state, relative to the campaign's folder."""
    digest: str
    """The file's hash."""
    steps: int
    stopped: str | None
    """The monitor's reason; None if the segment ran to its end."""
    finished: bool
    """Whether the trajectory has converged and ended."""
    averages: dict[str, float]
    """As `psiflow_core.components.Segment.averages`."""
    cut: bool = False
    """Whether the segment was shortened, because its block ended."""
    trajectory: str | None = None
    """Its frames."""
    candidate: Met | None = None


class Fallen(Typed):
    """A walker's segment has failed."""

    walker: int
    failed: FailedTask
    candidate: Met | None = None


class Sampled(TaskEnded):
    """Walkers have ended their segment."""

    kind: ClassVar[str] = "sampled"
    potential: str
    """The name of the potential that moved the walkers."""
    walkers: tuple[Annotated[Moved | Fallen, Field(union_mode="left_to_right")], ...]


class Scored(TaskEnded):
    """A newer model has scored the queue."""

    kind: ClassVar[str] = "scored"
    deviations: tuple[float, ...]
    """The committee's largest force spread in each candidate. [eV/Å]"""


class Evaluated(TaskEnded):
    """All labels are compared with predictions."""

    kind: ClassVar[str] = "evaluated"
    generation: int
    result: Predictions


class Failed(TaskEnded):
    """A task has failed."""

    kind: ClassVar[str] = "failed"
    failed: FailedTask
    again: bool
    """Whether it is started again."""


class Interrupted(TaskEnded):
    """The block of a task has ended, or would have before the task. This is no failure, and spends no attempt."""

    kind: ClassVar[str] = "interrupted"
    reason: str
    message: str
    requeued: bool
    """Whether its candidate is in the queue again, and may be chosen anew; otherwise the task is sent again."""


class Damaged(Happening):
    """Files are missing or damaged."""

    kind: ClassVar[str] = "damaged"
    files: tuple[str, ...]
    """Their paths, for a person."""
    labels: tuple[int, ...] = ()
    """Candidates whose label is lost."""
    models: tuple[tuple[int, int], ...] = ()
    """Generation and member."""
    walkers: tuple[int, ...] = ()
    structures: tuple[int, ...] = ()
    """Candidates whose structure is lost."""
    evaluation: bool = False


class Closing(Happening):
    """Sampling and labelling have ended."""

    kind: ClassVar[str] = "closing"
    reason: str


class Finished(Happening):
    """The campaign has ended."""

    kind: ClassVar[str] = "finished"
    reason: str
    message: str


KINDS: Mapping[str, type[Happening]] = {
    one.kind: one
    for one in (
        *(Opened, Proposed, Adopted, Started, Labelled, Trained, Sampled),
        *(Scored, Evaluated, Failed, Interrupted, Damaged, Closing, Finished),
    )
}


def parsed(number: int, time: float, kind: str, text: str) -> Event:
    """An event from its JSON text in the journal; its seal is sound.

    Raises:
        CampaignError: another version of psiflow wrote it.
    """
    if kind not in KINDS:
        raise CampaignError(
            f"event {number} of the journal is of the kind '{kind}', which this psiflow does not know: a "
            "newer psiflow wrote it; continue with that version, or choose another folder"
        )
    try:
        return Event(number, time, KINDS[kind].model_validate_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "it"
        raise strange(number, kind, f"{field}: {first['msg']}") from error


def strange(number: int, kind: str, why: str) -> CampaignError:
    """The error about an event that this version cannot read."""
    return CampaignError(
        f"event {number} of the journal, '{kind}', is not of this psiflow's format ({why}): another version "
        "wrote it; continue with that version, or choose another folder"
    )
