"""The state of a campaign: its present facts, without history or plan.

The state is a fold of the journal's events (`fold.py`). The next tasks (`planning.py`) and the end of the campaign
(`termination.py`) are functions of the state. None of them uses a clock, a file or a worker; only the driver does.
Quantities that they need are kept up to date instead of being searched for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from psiflow_core.execution.failures import ENDED, WRONG, told
from psiflow_core.execution.hosts import Hosts
from psiflow_core.learning.machine.candidates import PAID, Candidate, Candidates, Origin, Status
from psiflow_core.learning.machine.events import FailedTask, Opened
from psiflow_core.learning.machine.generations import Generation, Predictions
from psiflow_core.learning.machine.tasks import Sampling, Task, TaskKind
from psiflow_core.learning.machine.walkers import WalkerRecord


@dataclass(frozen=True)
class TaskFailure:
    """The failure of a task, or of one walker of a task, for reports."""

    of: Task
    failed: FailedTask
    reason: str
    again: bool = False
    """Whether it was started again."""
    attempts: int = 1
    """How often the task had been started before the failure."""
    walker: int | None = None
    """The failed walker; None if the whole task failed."""

    @property
    def task(self) -> str:
        return self.of.id

    @property
    def kind(self) -> TaskKind:
        return self.of.kind

    @property
    def type(self) -> str:
        """The exception's class."""
        return self.failed.failure.type

    @property
    def message(self) -> str:
        return self.failed.failure.message

    @property
    def told(self) -> str:
        """The message, as `psiflow_core.execution.failures.told`."""
        return told(self.failed.failure)

    @property
    def ends_all(self) -> bool:
        """Whether the failure ends the campaign."""
        if self.again or self.type == "WalkerExploded":
            return False
        whole = self.walker is None
        return self.kind == "train" or (self.kind == "sample" and whole and self.reason not in ENDED)


@dataclass
class Tasks:
    """Unfinished tasks: running, or failed with another attempt to come."""

    running: dict[str, Task] = field(default_factory=dict)
    again: list[Task] = field(default_factory=list)
    """Failed tasks that have another attempt."""
    _by_kind: dict[TaskKind, dict[str, Task]] = field(default_factory=dict)
    _away: set[int] = field(default_factory=set)
    _structures: dict[str, str] = field(default_factory=dict)
    """The structure of each running label."""
    _computing: Counter[str] = field(default_factory=Counter)
    """The same structures, counted."""

    def start(self, task: Task, structure: str = "") -> None:
        """Start a task; of a label its structure is told, too."""
        self.again = [other for other in self.again if other.id != task.id]
        self.running[task.id] = task
        self._by_kind.setdefault(task.kind, {})[task.id] = task
        if isinstance(task.about, Sampling):
            self._away.update(task.about.walkers)
        if structure:
            self._structures[task.id] = structure
            self._computing[structure] += 1

    def end(self, name: str) -> Task:
        """Remove an ended task."""
        task = self.running.pop(name)
        del self._by_kind[task.kind][name]
        if structure := self._structures.pop(name, ""):
            self._computing[structure] -= 1
            if not self._computing[structure]:
                del self._computing[structure]
        if isinstance(task.about, Sampling):
            self._away.difference_update(task.about.walkers)
        return task

    def retry(self, task: Task) -> None:
        """Schedule another attempt of a failed task."""
        self.again.append(task)
        if isinstance(task.about, Sampling):
            self._away.update(task.about.walkers)

    def forget(self, task: Task) -> None:
        """Drop a task."""
        if task.id in self.running:
            self.end(task.id)
        self.again = [other for other in self.again if other.id != task.id]
        if isinstance(task.about, Sampling):
            self._away.difference_update(task.about.walkers)

    def of(self, kind: TaskKind) -> Sequence[Task]:
        """The running tasks of a kind."""
        return tuple(self._by_kind.get(kind, {}).values())

    def count(self, kind: TaskKind) -> int:
        """The number of running tasks of a kind."""
        return len(self._by_kind.get(kind, ()))

    def all_of(self, kind: TaskKind) -> list[Task]:
        """The running tasks of a kind, and failed ones that have another attempt."""
        return [*self.of(kind), *(task for task in self.again if task.kind == kind)]

    def computes(self, structure: str) -> bool:
        """Whether a running task labels this structure."""
        return structure in self._computing

    def has(self, walker: int) -> bool:
        """Whether a walker belongs to an unfinished task."""
        return walker in self._away


@dataclass
class State:
    """The past of a campaign, as far as it affects the next tasks."""

    candidates: Candidates = field(default_factory=Candidates)
    walkers: list[WalkerRecord] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    """Complete generations, then at most one in training."""
    tasks: Tasks = field(default_factory=Tasks)
    phase_ends: bool = False
    """Whether some but not all tasks of a phase have ended."""
    attempts: Counter[str] = field(default_factory=Counter)
    """Number of starts by task, except for those that ended with their block."""
    interruptions: Counter[str] = field(default_factory=Counter)
    """Ends of blocks, by kind of task."""
    hosts: Hosts = field(default_factory=lambda: Hosts(""))
    """The hosts of this session's workers, and the failures of machines on them."""
    failures: list[TaskFailure] = field(default_factory=list)
    broken: TaskFailure | None = None
    """The first failure of a plugin that does not keep its contract, since the campaign was run again."""
    fatal: TaskFailure | None = None
    """The last failure that ends the campaign, since it was run again."""
    started: Counter[str] = field(default_factory=Counter)
    """Number of started tasks by kind, for their names."""
    evaluation: Predictions | None = None
    evaluated: int = -1
    """The generation of the last evaluation."""
    closing: str | None = None
    """Why sampling and labelling have ended; only the final training and the tests remain."""
    finished: str | None = None
    message: str = ""
    forgiven: int = 0
    """Number of failures before the campaign was run again: they no longer count."""
    opened: list[Opened] = field(default_factory=list)
    """Sessions of the driver."""
    busy: Counter[str] = field(default_factory=Counter)
    """Time spent by workers, by kind of task. [s]"""
    longest: Counter[str] = field(default_factory=Counter)
    """The longest time that a finished task took, by its kind. [s]"""
    elapsed: float = 0.0
    """Run time of all drivers. [s]"""
    time: float = 0.0
    """When the last event was written. [s since the epoch]"""
    last: int = 0
    """Its number."""
    steps: int = 0
    """Sampling steps of all walkers."""

    @property
    def newest(self) -> Generation | None:
        """The latest generation that is complete."""
        return next((generation for generation in reversed(self.generations) if generation.complete), None)

    @property
    def in_training(self) -> Generation | None:
        """The generation that is being trained."""
        last = self.generations[-1] if self.generations else None
        return last if last and not last.complete else None

    @property
    def running(self) -> dict[str, Task]:
        """Tasks under way, by name."""
        return self.tasks.running

    @property
    def again(self) -> list[Task]:
        """Failed tasks that have another attempt."""
        return self.tasks.again

    def runs(self, kind: TaskKind) -> Sequence[Task]:
        """Tasks of a kind that are under way."""
        return self.tasks.of(kind)

    def of(self, *origins: Origin) -> list[Candidate]:
        """Candidates by origin."""
        return self.candidates.of(*origins)

    def count(self, status: Status, origins: Iterable[Origin] = PAID) -> int:
        """Number of candidates by status; by default of those within the budget."""
        return self.candidates.count(status, origins=origins)

    @property
    def usable(self) -> Sequence[int]:
        """The numbers of candidates that are usable for training."""
        return self.candidates.usable

    @property
    def label_pending(self) -> bool:
        """Whether a label within the budget is queued or being computed."""
        return self.candidates.count("queued", "labelling") > 0

    @property
    def tests_pending(self) -> bool:
        """Whether the label of a test structure is still queued or being computed."""
        return self.candidates.count("queued", "labelling", origins=("test",)) > 0

    def spent(self, task: str) -> int:
        """The attempts of a task that count: on an excluded host, all failures count as one."""
        return self.attempts[task] - self.hosts.refunded(task)

    def fail(self, failure: TaskFailure) -> None:
        """Record a failure."""
        self.failures.append(failure)
        if failure.type in WRONG and self.broken is None:
            self.broken = failure
        if failure.ends_all:
            self.fatal = failure

    def forgive(self) -> None:
        """Stop counting the failures so far."""
        self.forgiven, self.broken, self.fatal = len(self.failures), None, None
