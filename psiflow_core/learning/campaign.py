"""A campaign's records and its state: what is known, and nothing about how it came or what comes next.

The state is a fold of the journal's events (`events.py`); what to start next is a function of it
(`planning.py`), and so is whether it is over (`ending.py`). None of them touches a clock, a file or a worker:
the driver does, and the simulation in the tests does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from psiflow_core.learning.schemes import ARRIVED
from psiflow_core.structures import Plain
from psiflow_core.tasks import told

Origin = Literal["atom", "initial", "bootstrap", "walker", "test"]
Status = Literal["queued", "labelling", "labelled", "failed", "dropped"]
TaskKind = Literal["label", "train", "sample", "score", "evaluate"]

WORK: dict[TaskKind, str] = {
    "label": "label",
    "train": "train",
    "sample": "sample",
    "score": "sample",
    "evaluate": "sample",
}
"""Which pool does what."""

UNNEEDED = "the campaign ended first"
"""Why candidates are dropped at the end; with a larger budget they come back."""

DAMAGED = "damaged"
"""Why a candidate waits for a label that it had: it comes before what nobody has paid for yet."""

LEARNED: tuple[Origin, ...] = ("initial", "bootstrap", "walker")
"""Where training structures come from."""


@dataclass
class Candidate:
    """A structure that may be worth a label, and what became of it: its fate."""

    id: int
    structure: str
    """Content hash."""
    origin: Origin
    subset: str
    """`training`, `validation`, `test` or `atom`."""
    status: Status = "queued"
    walker: int | None = None
    segment: int | None = None
    generation: int | None = None
    """The model that met it."""
    deviation: float | None = None
    """The committee's largest force spread, where it was met. [eV/Å]"""
    need: float = 0.0
    """The same by the newest model that has looked at it: the queue is in this order. [eV/Å]"""
    looked: int = -1
    """The generation of that model."""
    error: dict[str, float] | None = None
    """The model's error once the label was there."""
    file: str | None = None
    """The label."""
    starts: int = 0
    """How often its walker had started over when it was met."""
    discarded: bool = False
    """Labelled, but too far from the model to be trained on."""
    suspicious: bool = False
    """The label is so far from what the committee expected that one of them must be wrong: worth a look."""
    reason: str = ""
    """Why it failed or was dropped."""

    @property
    def usable(self) -> bool:
        """Whether it can be trained on or validated with."""
        return self.status == "labelled" and not self.discarded and self.origin in LEARNED


@dataclass
class WalkerRecord:
    """What the campaign knows of a walker between two segments."""

    id: int
    file: str | None = None
    """Where its state is; None at its starting structure."""
    digest: str | None = None
    segments: int = 0
    """Segments that have ended, whatever their end."""
    steps: int = 0
    since: int = 0
    """Steps since it started, or started over."""
    stage: int = 0
    """How far along the path of incremental learning its next segment goes."""
    generation: int | None = None
    """The model of its last segment."""
    waiting_for: int | None = None
    """The candidate that it stopped at: it goes on with a model that knows it."""
    settled: int | None = None
    """The generation under which it reached its own end (an optimisation): it starts over with the next."""
    resets: Counter[str] = field(default_factory=Counter)
    """Reasons."""
    temperature: float | None = None
    """Mean over its last segment. [K]"""
    stopped: str | None = None
    """Why its last segment ended early."""
    recalled: str | None = None
    """Why it starts over when it is back from the segment under way."""
    idle: int = 0
    """Segments in a row, of this generation, that gave no candidate."""
    astray: int = 0
    """How many of them ended with a walker that had to start over."""

    def set_off(self) -> None:
        """Begin a segment; from the start, if the last one came to the trajectory's own end."""
        if self.settled is not None:
            self.file = self.digest = self.settled = None
            self.since = 0
        self.waiting_for = None

    def reset(self, reason: str) -> None:
        """Go back to the starting structure."""
        self.file = self.digest = self.waiting_for = self.settled = self.recalled = None
        self.since = 0
        self.resets[reason] += 1

    def advance(self, last: int) -> None:
        """Go a stage further along the path, after the last one back to the start."""
        self.stage += 1
        self.settled = None
        if self.stage > last:
            self.stage = 0
            self.reset(ARRIVED)

    def progress(self) -> None:
        """Something new was met, or there is a new model: what came of nothing is counted anew."""
        self.idle = self.astray = 0


@dataclass
class Generation:
    """One training of the whole committee."""

    number: int
    training: list[int]
    """Candidates that it learned from."""
    validation: list[int]
    final: bool
    committee: int
    """How many members it will have."""
    members: dict[int, Plain] = field(default_factory=dict)
    """By member: model file and hash, errors, steps, history, seconds."""

    @property
    def complete(self) -> bool:
        """Whether every member is there."""
        return len(self.members) == self.committee

    @property
    def known(self) -> int:
        """How many labels it knows."""
        return len(self.training) + len(self.validation)

    @property
    def models(self) -> list[Plain]:
        """Path and digest of each member's weights, in the order of the members."""
        return [self.members[number]["model"] for number in sorted(self.members)]

    def mean_error(self, name: str) -> float:
        """An error averaged over the members."""
        return sum(member["errors"][name] for member in self.members.values()) / len(self.members)


@dataclass(frozen=True)
class Task:
    """Something to be done, named by what it is about; its input follows from that and the state."""

    id: str
    kind: TaskKind
    about: Plain


@dataclass(frozen=True)
class Failure:
    """A task that ended in a failure, as a person will read it."""

    task: str
    kind: str
    reason: str
    message: str
    again: bool
    """Whether it was started once more."""
    type: str = ""
    """The exception's class."""
    attempts: int = 1
    """How often the task had been started by then."""
    whole: bool = True
    """Whether all of the task failed, and not only one walker of it."""
    plugin: str = ""
    """The plugin that raised an exception of its own; empty where a type of psiflow's tells what is wrong."""
    where: str = ""
    """File and line of where the exception was raised."""

    @property
    def told(self) -> str:
        """The message, as `psiflow_core.tasks.told`."""
        return told(vars(self))


def label_task(candidate: Candidate) -> str:
    """The name of the task that labels a candidate."""
    return f"label-{candidate.id:05d}"


@dataclass
class State:
    """All that has happened, as far as it matters for what comes next."""

    candidates: list[Candidate] = field(default_factory=list)
    walkers: list[WalkerRecord] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    """Complete ones, then at most one in training."""
    running: dict[str, Task] = field(default_factory=dict)
    phase_ends: bool = False
    """Whether some of the tasks that ran together have ended, and others not."""
    again: list[Task] = field(default_factory=list)
    """Failed tasks that have another attempt."""
    attempts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    started: Counter[str] = field(default_factory=Counter)
    """Tasks by kind, for their names."""
    evaluation: Plain | None = None
    evaluated: int = -1
    """The number of labels that the last evaluation saw."""
    closing: str | None = None
    """Why nothing more is sampled and labelled; what remains is the final training and the tests."""
    finished: str | None = None
    message: str = ""
    forgiven: int = 0
    """Failures before the campaign was run again: they do not count against it any longer."""
    opened: list[Plain] = field(default_factory=list)
    """Sessions of the driver."""
    busy: Counter[str] = field(default_factory=Counter)
    """Seconds that workers spent, by kind of task."""
    elapsed: float = 0.0
    """Seconds that drivers ran."""
    time: float = 0.0
    """When the last event was written. [s since the epoch]"""
    last: int = 0
    """Its number."""
    steps: int = 0
    """Sampling steps of all walkers."""

    @property
    def newest(self) -> Generation | None:
        """The latest generation that is complete."""
        done = [generation for generation in self.generations if generation.complete]
        return done[-1] if done else None

    @property
    def in_training(self) -> Generation | None:
        """The generation that is being trained."""
        last = self.generations[-1] if self.generations else None
        return last if last and not last.complete else None

    def of(self, *origins: Origin) -> list[Candidate]:
        """Candidates by where they come from."""
        return [candidate for candidate in self.candidates if candidate.origin in origins]

    def count(self, status: Status, origins: Iterable[Origin] = ("bootstrap", "walker")) -> int:
        """Candidates that the budget pays for, by status."""
        return sum(1 for candidate in self.candidates if candidate.status == status and candidate.origin in origins)

    def runs(self, kind: TaskKind) -> list[Task]:
        """Tasks of a kind that are under way."""
        return [task for task in self.running.values() if task.kind == kind]

    @property
    def usable(self) -> list[int]:
        """Candidates that can be learned from, by number."""
        return [candidate.id for candidate in self.candidates if candidate.usable]

    @property
    def label_pending(self) -> bool:
        """Whether a label that the budget pays for is queued or under way."""
        return bool(self.count("queued") or self.count("labelling"))

    @property
    def tests_pending(self) -> bool:
        """Whether a test structure has no label yet, and may get one."""
        return any(test.status in ("queued", "labelling") for test in self.of("test"))
