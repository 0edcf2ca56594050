"""The campaign as a pure state machine.

The state is a fold of `apply` over the journal's events; what to start next is a function, `plan`, of that
state. Neither touches a clock, a file or a worker: the driver does, and the simulation in the tests does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from psiflow_core.learning.settings import Settings
from psiflow_core.learning.stopping import ATTEMPTS
from psiflow_core.store import Event
from psiflow_core.structures import Plain

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
    discarded: bool = False
    """Labelled, but too far from the model to be trained on."""
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

    def set_off(self) -> None:
        """Begin a segment; from the start, if the last one came to the trajectory's own end."""
        if self.settled is not None:
            self.file = self.digest = self.settled = None
        self.waiting_for = None

    def reset(self, reason: str) -> None:
        """Go back to the starting structure."""
        self.file = self.digest = self.waiting_for = self.settled = None
        self.resets[reason] += 1


@dataclass
class Generation:
    """One training of the whole committee."""

    number: int
    training: list[int]
    """Candidates that it learned from."""
    validation: list[int]
    final: bool
    members: dict[int, Plain] = field(default_factory=dict)
    """By member: model file and hash, errors, steps, history, seconds."""

    @property
    def known(self) -> int:
        """How many labels it knows."""
        return len(self.training) + len(self.validation)

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
    quiet: int = 0
    """Segments in a row that gave no candidate, those that went astray apart."""
    astray: int = 0
    """Segments in a row after which a walker had to start over."""
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
    steps: int = 0
    """Sampling steps of all walkers."""

    @property
    def newest(self) -> Generation | None:
        """The latest generation that is complete."""
        done = self.generations[:-1] if self.in_training else self.generations
        return done[-1] if done else None

    @property
    def in_training(self) -> Generation | None:
        """The generation that is being trained."""
        last = self.generations[-1] if self.generations else None
        return last if last and len(last.members) < self._committee else None

    _committee: int = 1

    def of(self, *origins: Origin) -> list[Candidate]:
        """Candidates by where they come from."""
        return [candidate for candidate in self.candidates if candidate.origin in origins]

    def count(self, status: Status, origins: Iterable[Origin] = ("bootstrap", "walker")) -> int:
        """Candidates that the budget pays for, by status."""
        return sum(1 for candidate in self.candidates if candidate.status == status and candidate.origin in origins)

    def runs(self, kind: TaskKind) -> list[Task]:
        """Tasks of a kind that are under way."""
        return [task for task in self.running.values() if task.kind == kind]


def fold(events: Iterable[Event], settings: Settings, state: State | None = None) -> State:
    """The state after these events."""
    state = state or State()
    for event in events:
        apply(state, event, settings)
    return state


def apply(state: State, event: Event, settings: Settings) -> None:
    """Let one event change the state."""
    if event.kind != "opened" and state.time:
        state.elapsed += event.time - state.time
    state.time = event.time
    state._committee = settings.committee
    APPLY[event.kind](state, event.data, settings)


def _opened(state: State, data: Plain, settings: Settings) -> None:
    state.opened.append(data)
    while len(state.walkers) < settings.walkers:
        state.walkers.append(WalkerRecord(len(state.walkers)))
    if state.finished is not None:
        _reopen(state)
    elif state.closing != "converged":
        state.closing = None  # budgets may be larger now; the driver looks again


def _reopen(state: State) -> None:
    """Go on after the end: with a larger budget, or once what made the campaign give up is mended."""
    failed_before = state.finished == "failed"
    state.closing, state.finished, state.forgiven, state.astray = None, None, len(state.failures), 0
    for candidate in state.candidates:
        if candidate.reason == UNNEEDED or (failed_before and candidate.status == "failed"):
            candidate.status, candidate.reason = "queued", ""


def _proposed(state: State, data: Plain, settings: Settings) -> None:
    for proposal in data["candidates"]:
        _add_candidate(state, settings, **proposal)


def _started(state: State, data: Plain, settings: Settings) -> None:
    task = Task(data["task"], data["kind"], data["about"])
    state.running[task.id] = task
    state.again = [other for other in state.again if other.id != task.id]
    first = not state.attempts[task.id]
    state.started[task.kind] += first
    state.attempts[task.id] += 1
    if task.kind == "label":
        state.candidates[task.about["candidate"]].status = "labelling"
    for number in task.about.get("walkers", ()):
        state.walkers[number].set_off()
    if first and "upto" in task.about:
        training, validation = _split(state, task.about["upto"])
        state.generations.append(Generation(task.about["generation"], training, validation, task.about["final"]))


def _labelled(state: State, data: Plain, settings: Settings) -> None:
    _ended(state, data)
    candidate = state.candidates[data["candidate"]]
    candidate.status, candidate.file = "labelled", data["file"]
    candidate.error, candidate.discarded = data["error"], data["discard"]
    if candidate.discarded:
        candidate.reason = "discarded: too far from the model"
    if data["reset"] or data["discard"]:
        for walker in _waiting(state, candidate.id):
            walker.reset("model error")


def _trained(state: State, data: Plain, settings: Settings) -> None:
    _ended(state, data)
    state.generations[data["generation"]].members[data["member"]] = data["result"]
    if state.in_training is None and not state.generations[-1].final:
        state.quiet = state.astray = 0


def _adopted(state: State, data: Plain, settings: Settings) -> None:
    members = dict(enumerate(data["members"]))
    state.generations.append(Generation(0, [], [], final=False, members=members))


def _sampled(state: State, data: Plain, settings: Settings) -> None:
    task = _ended(state, data)
    for told in data["walkers"]:
        walker = state.walkers[told["walker"]]
        walker.segments += 1
        walker.generation = task.about["generation"]
        if "failure" in told:
            _walker_failed(state, walker, task, told["failure"])
        else:
            _walker_moved(state, walker, told, settings)


def _walker_moved(state: State, walker: WalkerRecord, told: Plain, settings: Settings) -> None:
    walker.file, walker.digest, walker.stopped = told["file"], told["digest"], told["stopped"]
    walker.steps += told["steps"]
    walker.temperature = told["averages"].get("temperature")
    state.steps += told["steps"]
    proposal = told.get("candidate")
    wanted = proposal is not None and (settings.committee == 1 or settings.selection.wanted(proposal["deviation"]))
    if told["finished"]:
        walker.settled = walker.generation
    if wanted:
        state.quiet = state.astray = 0
        _propose(state, walker, told, settings)
    elif told["stopped"]:
        _start_over(state, walker, told["stopped"])
    else:
        state.quiet, state.astray = state.quiet + 1, 0


def _propose(state: State, walker: WalkerRecord, told: Plain, settings: Settings) -> None:
    """Queue what the walker met. Walkers that move alike meet the same structure: that is one candidate."""
    proposal = told["candidate"]
    candidate = next((one for one in state.of(*LEARNED) if one.structure == proposal["structure"]), None)
    if candidate is None:
        candidate = _add_candidate(
            state,
            settings,
            structure=proposal["structure"],
            origin="walker",
            walker=walker.id,
            segment=walker.segments,
            generation=walker.generation,
            deviation=proposal["deviation"],
            need=proposal["deviation"],
            looked=walker.generation,
        )
    if told["stopped"] and (candidate.status in ("queued", "labelling") or candidate.usable):
        walker.waiting_for = candidate.id
    elif told["stopped"]:
        _start_over(state, walker, "label failed")


def _start_over(state: State, walker: WalkerRecord, reason: str) -> None:
    walker.reset(reason)
    state.astray += 1


def _walker_failed(state: State, walker: WalkerRecord, task: Task, failure: Plain) -> None:
    walker.stopped = failure["type"]
    _start_over(state, walker, failure["type"])
    reason = "exploded" if failure["type"] == "WalkerExploded" else failure["reason"]
    state.failures.append(Failure(task.id, "sample", reason, failure["message"], False, failure["type"]))


def _scored(state: State, data: Plain, settings: Settings) -> None:
    """A newer model has looked at the queue: what it knows well is not worth a label any longer."""
    task = _ended(state, data)
    for number, need in zip(task.about["candidates"], data["deviations"], strict=True):
        candidate = state.candidates[number]
        candidate.need, candidate.looked = need, task.about["generation"]
        if candidate.status == "queued" and not settings.selection.wanted(need):
            candidate.status, candidate.reason = "dropped", f"known to generation {candidate.looked}"
            for walker in _waiting(state, number):
                walker.waiting_for = None


def _evaluated(state: State, data: Plain, settings: Settings) -> None:
    _ended(state, data)
    state.evaluation = data["result"]
    state.evaluated = data["generation"]


def _failed(state: State, data: Plain, settings: Settings) -> None:
    task = _ended(state, data)
    state.failures.append(Failure(task.id, task.kind, data["reason"], data["message"], data["again"], data["type"]))
    if data["again"]:
        state.again.append(task)
    elif task.kind == "label":
        candidate = state.candidates[task.about["candidate"]]
        candidate.status, candidate.reason = "failed", data["reason"]
        for walker in _waiting(state, candidate.id):
            walker.reset("label failed")
    elif task.kind == "score":
        for number in task.about["candidates"]:
            state.candidates[number].looked = task.about["generation"]
    elif task.kind == "sample":
        for number in task.about["walkers"]:
            state.walkers[number].segments += 1
            _start_over(state, state.walkers[number], data["reason"])


def _closing(state: State, data: Plain, settings: Settings) -> None:
    state.closing = data["reason"]


def _finished(state: State, data: Plain, settings: Settings) -> None:
    state.finished, state.message = data["reason"], data["message"]
    for candidate in state.candidates:
        if candidate.status == "queued" and data["reason"] != "failed":
            candidate.status, candidate.reason = "dropped", UNNEEDED


APPLY = {
    "opened": _opened,
    "proposed": _proposed,
    "started": _started,
    "labelled": _labelled,
    "trained": _trained,
    "adopted": _adopted,
    "sampled": _sampled,
    "scored": _scored,
    "evaluated": _evaluated,
    "failed": _failed,
    "closing": _closing,
    "finished": _finished,
}


def _ended(state: State, data: Plain) -> Task:
    task = state.running.pop(data["task"])
    state.phase_ends = bool(state.running)
    state.busy[task.kind] += data["seconds"]
    return task


def _usable(state: State) -> list[int]:
    return [candidate.id for candidate in state.candidates if candidate.usable]


def _waiting(state: State, candidate: int) -> list[WalkerRecord]:
    return [walker for walker in state.walkers if walker.waiting_for == candidate]


def _add_candidate(state: State, settings: Settings, *, structure: str, origin: Origin, **rest: object) -> Candidate:
    number = len(state.of(*LEARNED))
    subset = settings.selection.subset(number) if origin in LEARNED else origin
    candidate = Candidate(len(state.candidates), structure, origin, subset)
    for name, value in rest.items():
        setattr(candidate, name, value)
    if candidate.file:
        candidate.status = "labelled"
    state.candidates.append(candidate)
    return candidate


def _split(state: State, upto: list[int]) -> tuple[list[int], list[int]]:
    training = [number for number in upto if state.candidates[number].subset == "training"]
    validation = [number for number in upto if state.candidates[number].subset == "validation"]
    return (training, validation) if training else (validation, [])


# What comes next -------------------------------------------------------------------------------------------


def plan(state: State, settings: Settings, pool_of: dict[str, str], slots: dict[str, int]) -> list[Task]:
    """The tasks to start now: the most urgent first, as many as there are free workers.

    Under the sequential schedule all tasks of a phase start together, and the next phase when all have ended: that
    way nothing depends on which ends first, nor on when a driver is killed.

    Args:
        pool_of: the pool that does each kind of work.
        slots: tasks that each pool runs at once.
    """
    if state.finished is not None or (state.phase_ends and settings.schedule == "sequential"):
        return []
    free = Counter(slots)
    for task in state.running.values():
        free[pool_of[WORK[task.kind]]] -= 1
    tasks = []
    for task in _wanted(state, settings, pool_of, free, slots):
        pool = pool_of[WORK[task.kind]]
        if free[pool] > 0 or settings.schedule == "sequential":
            free[pool] -= 1
            tasks.append(task)
    return tasks


def conclusion(state: State, settings: Settings) -> tuple[str, str] | None:
    """Why the campaign ends now, a word and a sentence; None while there is something to do."""
    fatal = _fatal(state, settings)
    if fatal:
        return "failed", fatal
    if state.running or state.again or state.closing is None:
        return None
    if state.newest is None and not _usable(state):
        return state.closing, f"{REASONS[state.closing]}, before there was a first model"
    if not _final_is_trained(state, settings) or _tests_pending(state):
        return None
    if state.newest is None or state.evaluated != state.newest.number:
        return None
    return state.closing, REASONS[state.closing]


REASONS = {
    "labels": "the budget of labels is spent",
    "generations": "the budget of generations is spent",
    "hours": "the budget of hours is spent",
    "converged": "no walker meets anything that the potential does not know",
}


def exhausted(state: State, settings: Settings) -> str | None:
    """Why no more structures should be sampled and labelled; None while they should."""
    budget = settings.budget
    complete = state.generations[:-1] if state.in_training else state.generations
    done = sum(1 for generation in complete if generation.known and not generation.final)
    if state.count("labelled") >= budget.labels:
        return "labels"
    if budget.generations is not None and done >= budget.generations:
        return "generations"
    if budget.hours is not None and state.elapsed >= budget.hours * 3600:
        return "hours"
    return "converged" if _converged(state, settings) else None


def _converged(state: State, settings: Settings) -> bool:
    """Nothing new in many segments, or every walker has come to its own end."""
    newest = state.newest
    if newest is None or _label_pending(state) or state.in_training:
        return False
    settled = all(walker.settled is not None and walker.settled >= newest.number for walker in state.walkers)
    fresh = len(_usable(state)) > newest.known
    quiet = state.quiet >= settings.stopping.patience * settings.walkers
    return quiet or (settled and not fresh)


def _fatal(state: State, settings: Settings) -> str | None:
    atoms = [atom for atom in state.of("atom") if atom.status == "failed"]
    if atoms:
        return f"the reference cannot compute an isolated atom: {_last_message(state)}"
    failed, labelled = state.count("failed"), state.count("labelled")
    if settings.stopping.gives_up(failed, failed + labelled):
        return f"{failed} of {failed + labelled} labels failed; the last: {_last_message(state)}"
    first = state.of("bootstrap", "initial")
    if first and all(candidate.status == "failed" for candidate in first):
        return f"every structure to begin with failed; the last: {_last_message(state)}"
    recent = state.failures[state.forgiven :]
    given_up = [failure for failure in recent if failure.kind in ("train", "evaluate") and not failure.again]
    if given_up:
        return f"{given_up[-1].task} failed {ATTEMPTS} times; the last: {given_up[-1].message}"
    return _walkers_are_lost(state, settings)


def _walkers_are_lost(state: State, settings: Settings) -> str | None:
    """Every walker starts over again and again, and there is nothing left to learn that could help."""
    newest = state.newest
    if not _all_astray(state, settings) or newest is None or state.running or state.closing:
        return None
    if _label_pending(state) or newest.known < len(_usable(state)):
        return None
    reasons = Counter(reason for walker in state.walkers for reason in walker.resets.elements())
    return (
        f"the last {state.astray} segments all ended with a walker that had to start over "
        f"({', '.join(f'{reason}: {count}' for reason, count in reasons.most_common(3))}); "
        "give more bootstrap structures, or a lower temperature"
    )


def _last_message(state: State) -> str:
    return state.failures[-1].message if state.failures else "no message"


def _wanted(
    state: State, settings: Settings, pool_of: dict[str, str], free: Counter[str], slots: dict[str, int]
) -> Iterator[Task]:
    """Everything that could start now, by urgency; ``free`` is kept up to date by the one who takes."""
    yield from state.again
    yield from _trainings(state, settings)
    yield from _scores(state, settings)
    yield from _labels(state, settings)
    yield from _segments(state, settings, free[pool_of["sample"]], slots[pool_of["sample"]])
    yield from _evaluations(state, settings)
    yield from _label_tasks(test for test in state.of("test") if test.status == "queued")


def _label_tasks(candidates: Iterable[Candidate]) -> Iterator[Task]:
    for candidate in candidates:
        yield Task(f"label-{candidate.id:05d}", "label", {"candidate": candidate.id})


def _labels(state: State, settings: Settings) -> Iterator[Task]:
    """Atoms, then the bootstrap, then walkers' candidates, the most uncertain first, within the budget."""
    yield from _label_tasks(atom for atom in state.of("atom") if atom.status == "queued")
    if state.closing or (settings.schedule == "sequential" and _lap_goes_on(state, settings)):
        return
    queued = [candidate for candidate in state.of("bootstrap", "walker") if candidate.status == "queued"]
    queued.sort(key=lambda candidate: (candidate.origin != "bootstrap", -candidate.need, candidate.id))
    paid = state.count("labelled") + state.count("labelling")
    yield from _label_tasks(queued[: max(0, settings.budget.labels - paid)])


def _scores(state: State, settings: Settings) -> Iterator[Task]:
    """The queue, once there is a newer model than those that filled it; sequentially it is empty by then."""
    newest = state.newest
    if newest is None or state.closing or state.runs("score") or settings.schedule == "sequential":
        return
    stale = [c.id for c in state.of("walker") if c.status == "queued" and c.looked < newest.number]
    if stale and settings.committee > 1:
        about = {"generation": newest.number, "candidates": stale}
        yield Task(f"score-{state.started['score']:05d}", "score", about)


def _trainings(state: State, settings: Settings) -> Iterator[Task]:
    """The members of the generation in training that have not been started, or of a new one if it is due."""
    generation = state.in_training
    if generation is None:
        upto = _usable(state)
        if _training_due(state, settings, len(upto)):
            final = state.closing is not None
            yield _training(len(state.generations), final, 0, upto=upto)
            for member in range(1, settings.committee):
                yield _training(len(state.generations), final, member)
        return
    under_way = {task.about["member"] for task in [*state.runs("train"), *state.again] if task.kind == "train"}
    for member in range(settings.committee):
        if member not in under_way and member not in generation.members:
            yield _training(generation.number, generation.final, member)


def _training(generation: int, final: bool, member: int, **more: list[int]) -> Task:
    about = {"generation": generation, "final": final, "member": member, **more}
    return Task(f"train-{generation:03d}-{member}", "train", about)


def _training_due(state: State, settings: Settings, usable: int) -> bool:
    newest = state.newest
    if any(atom.status != "labelled" for atom in state.of("atom")) or not usable:
        return False
    if state.closing:
        return not state.count("labelling") and not _final_is_trained(state, settings)
    if newest is None:
        return not any(first.status in ("queued", "labelling") for first in state.of("bootstrap"))
    fresh = usable - newest.known
    still = not state.runs("sample") and not state.count("labelling")
    if settings.schedule == "sequential":
        return fresh > 0 and still and not _label_pending(state) and not _behind(state, settings)
    stalled = still and not state.count("queued")
    return settings.training.due(fresh, newest.known) or (fresh > 0 and stalled)


def _final_is_trained(state: State, settings: Settings) -> bool:
    newest = state.newest
    if newest is None or state.in_training or newest.known != len(_usable(state)):
        return False
    nothing_to_learn_from = newest.known == 0  # the model was given, and no label came
    return newest.final or settings.training.final_steps is None or nothing_to_learn_from


def _tests_pending(state: State) -> bool:
    return any(test.status in ("queued", "labelling") for test in state.of("test"))


def _behind(state: State, settings: Settings) -> list[WalkerRecord]:
    """Under the sequential schedule: walkers that have not done this lap's segment, and can."""
    if _sated(state, settings):
        return []
    lap = max((walker.segments for walker in state.walkers), default=0)
    return [walker for walker in state.walkers if walker.segments < lap and _may_move(state, walker)]


def _label_pending(state: State) -> bool:
    return bool(state.count("queued") or state.count("labelling"))


def _segments(state: State, settings: Settings, free: int, slots: int) -> Iterator[Task]:
    """Walkers that can move, in groups of equal size that fill the free workers.

    Under the sequential schedule groups do not depend on what is under way: a driver that was killed between
    two starts makes the same ones.
    """
    ready = [walker.id for walker in _ready(state, settings)]
    if not ready:
        return
    newest = state.newest
    assert newest is not None
    share = ceil(len(ready) / max(1, free)) if settings.schedule == "concurrent" else ceil(settings.walkers / slots)
    size = min(settings.batch, share)
    for number, start in enumerate(range(0, len(ready), size)):
        group = ready[start : start + size]
        name = f"sample-{state.started['sample'] + number:05d}"
        about = {"walkers": group, "generation": newest.number, "progress": state.count("labelled")}
        yield Task(name, "sample", about)


def _ready(state: State, settings: Settings) -> list[WalkerRecord]:
    if state.newest is None or state.closing or _sated(state, settings):
        return []
    busy = {number for task in [*state.runs("sample"), *state.again] for number in task.about.get("walkers", ())}
    walkers = [walker for walker in state.walkers if walker.id not in busy and _may_move(state, walker)]
    if settings.schedule == "concurrent":
        return walkers
    behind = _behind(state, settings)
    if behind:
        return [walker for walker in walkers if walker in behind]
    waits = state.in_training or _label_pending(state) or _training_due(state, settings, len(_usable(state)))
    return [] if waits else walkers


def _lap_goes_on(state: State, settings: Settings) -> bool:
    tasks = [*state.running.values(), *state.again]
    return any(task.kind == "sample" for task in tasks) or bool(_behind(state, settings))


def _sated(state: State, settings: Settings) -> bool:
    """Whether more candidates would be of no use now, or walkers do nothing but go astray."""
    spoken_for = sum(state.count(status) for status in ("labelled", "labelling", "queued"))
    enough = spoken_for >= settings.budget.labels or state.count("queued") >= 2 * settings.walkers
    return enough or _all_astray(state, settings)


def _all_astray(state: State, settings: Settings) -> bool:
    return state.astray >= settings.stopping.patience * settings.walkers


def _may_move(state: State, walker: WalkerRecord) -> bool:
    newest = state.newest
    if newest is None or (walker.settled is not None and walker.settled >= newest.number):
        return False
    return walker.waiting_for is None or walker.waiting_for in {*newest.training, *newest.validation}


def _evaluations(state: State, settings: Settings) -> Iterator[Task]:
    """Every generation against all labels, once the last one is trained and the test labels are there."""
    newest = state.newest
    if newest is None or state.closing is None or _tests_pending(state) or state.count("labelling"):
        return
    if any(task.kind == "evaluate" for task in [*state.running.values(), *state.again]):
        return
    if _final_is_trained(state, settings) and state.evaluated != newest.number:
        yield Task(f"evaluate-{newest.number:03d}", "evaluate", {"generation": newest.number})
