"""The state as a fold of the journal: the change made by each kind of event."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import Any

from psiflow_core.errors import PsiflowError
from psiflow_core.execution.failures import ALIKE, ENDED
from psiflow_core.execution.hosts import Hosts, host_of, of_host
from psiflow_core.learning.machine.candidates import DAMAGED, LEARNED, UNNEEDED, Candidate
from psiflow_core.learning.machine.events import (
    Adopted,
    Closing,
    Damaged,
    Evaluated,
    Event,
    Failed,
    Finished,
    Happening,
    Interrupted,
    Labelled,
    Opened,
    Proposed,
    Sampled,
    Scored,
    Started,
    TaskEnded,
    Trained,
    strange,
)
from psiflow_core.learning.machine.generations import Generation
from psiflow_core.learning.machine.segments import call_back, end_segment, fail_segment, seen, waiting
from psiflow_core.learning.machine.state import State, TaskFailure
from psiflow_core.learning.machine.tasks import Evaluating, Labelling, MemberTraining, Sampling, Scoring, Task
from psiflow_core.learning.machine.walkers import WalkerRecord
from psiflow_core.learning.policies.settings import Settings


def fold(events: Iterable[Event], settings: Settings, state: State | None = None) -> State:
    """The state after these events.

    Raises:
        CampaignError: an event contradicts earlier events: another version of psiflow wrote it.
    """
    state = state or State()
    for event in events:
        try:
            apply(state, event, settings)
        except PsiflowError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise strange(event.number, event.kind, f"{type(error).__name__}: {error}") from error
    return state


def apply(state: State, event: Event, settings: Settings) -> None:
    """Change the state by one event."""
    if not isinstance(event.what, Opened) and state.time:
        state.elapsed += max(0.0, event.time - state.time)  # the clock of an older journal may have been set back
    state.time, state.last = event.time, event.number
    _change(event.what, state, settings)


@singledispatch
def _change(what: Happening, state: State, settings: Settings) -> None:
    raise TypeError(f"no event changes the state as a {type(what).__name__}")


@_change.register
def _opened(what: Opened, state: State, settings: Settings) -> None:
    state.opened.append(what)
    state.hosts = Hosts(what.host)  # an excluded host may have been repaired
    while len(state.walkers) < settings.trajectories:
        state.walkers.append(WalkerRecord(len(state.walkers)))
    if state.finished is not None:
        _reopen(state)
    else:
        state.closing = what.closing


def _reopen(state: State) -> None:
    """Continue after the end: with a larger budget, or after the cause of a failure was corrected."""
    failed_before, failed = state.finished == "failed", state.failures[state.forgiven :]
    state.closing, state.finished = None, None
    state.forgive()
    if failed_before:
        state.attempts.clear()
        if state.evaluation is None:
            state.evaluated = -1
        if state.newest is not None and state.newest.known and any(one.type == ALIKE for one in failed):
            for generation in state.generations[state.newest.number :]:
                generation.members.clear()  # identical members: trained again with a corrected plugin
            _drop_orphans(state, ())
        for walker in state.walkers:
            walker.progress()
    for candidate in state.candidates:
        if candidate.reason == UNNEEDED or (failed_before and candidate.status == "failed"):
            state.candidates.change(candidate.id, status="queued", reason="")


@_change.register
def _proposed(what: Proposed, state: State, settings: Settings) -> None:
    for proposal in what.candidates:
        known = proposal.model_dump(exclude={"structure", "origin"})
        subset = settings.training.subset(state.candidates.number_of(*LEARNED))
        state.candidates.add(
            Candidate(
                len(state.candidates),
                proposal.structure,
                proposal.origin,
                subset if proposal.origin in LEARNED else proposal.origin,
                status="labelled" if proposal.file else "queued",
                **known,
            )
        )


@_change.register
def _started(what: Started, state: State, settings: Settings) -> None:
    task, about = what.task, what.task.about
    state.tasks.start(task, state.candidates[about.candidate].structure if isinstance(about, Labelling) else "")
    state.started[task.kind] += not state.attempts[task.id]
    state.attempts[task.id] += 1
    if isinstance(about, Labelling):
        state.candidates.change(about.candidate, status="labelling")
    elif isinstance(about, Sampling):
        for number in about.walkers:
            state.walkers[number].set_off()
    elif isinstance(about, MemberTraining) and about.upto is not None and about.generation == len(state.generations):
        training, validation = _split(state, about.upto)
        state.generations.append(Generation(about.generation, training, validation, about.final, settings.committee))


def _split(state: State, upto: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    training = tuple(number for number in upto if state.candidates[number].subset == "training")
    validation = tuple(number for number in upto if state.candidates[number].subset == "validation")
    return (training, validation) if training else (validation, ())


@_change.register
def _labelled(what: Labelled, state: State, settings: Settings) -> None:
    _ended(state, what)
    candidate = state.candidates.change(
        what.candidate,
        status="labelled",
        file=what.file,
        error=what.error,
        discarded=what.discard,
        suspicious=what.suspicious,
        **_remark(what),
    )
    if what.reset or what.discard:
        call_back(state, candidate)


def _remark(what: Labelled) -> dict[str, Any]:
    """The reason to discard or suspect a label, if any."""
    if what.discard:
        return {"reason": "discarded: too far from the model"}
    return {"reason": "suspicious: far from what the committee expected"} if what.suspicious else {}


@_change.register
def _trained(what: Trained, state: State, settings: Settings) -> None:
    _ended(state, what)
    state.generations[what.generation].members[what.member] = what.result
    if state.in_training is None and not state.generations[-1].final:
        for walker in state.walkers:
            walker.progress()


@_change.register
def _adopted(what: Adopted, state: State, settings: Settings) -> None:
    members = dict(enumerate(what.members))
    state.generations.append(Generation(0, (), (), final=False, committee=len(members), members=members))


@_change.register
def _sampled(what: Sampled, state: State, settings: Settings) -> None:
    task = _ended(state, what)
    for told in what.walkers:
        end_segment(state, task, told, settings)


@_change.register
def _scored(what: Scored, state: State, settings: Settings) -> None:
    """A newer model has scored the queue: drop the structures that it knows well."""
    about = _ended(state, what).about
    assert isinstance(about, Scoring)
    for number, deviation in zip(about.candidates, what.deviations, strict=True):
        candidate = state.candidates[number]
        met = seen(candidate.structure, deviation, settings)
        need = settings.selection.priority(met)
        known = candidate.status == "queued" and not settings.selection.wanted(met)
        fate = {"status": "dropped", "reason": f"known to generation {about.generation}"} if known else {}
        state.candidates.change(number, need=need, looked=about.generation, **fate)
        if known:
            for walker in waiting(state, number):
                walker.waiting_for = None


@_change.register
def _evaluated(what: Evaluated, state: State, settings: Settings) -> None:
    _ended(state, what)
    state.evaluation, state.evaluated = what.result, what.generation


@_change.register
def _failed(what: Failed, state: State, settings: Settings) -> None:
    failure = what.failed.failure
    if of_host(failure.type, failure.reason):
        state.hosts.failed(what.task, host_of(what.worker), failure.message)
        what = what.model_copy(update={"worker": ""})  # it has not finished there
    task = _ended(state, what)
    state.fail(TaskFailure(task, what.failed, failure.reason, what.again, state.attempts[task.id]))
    if what.again:
        state.tasks.retry(task)
    else:
        _give_up(state, task, failure.reason, settings)


@_change.register
def _interrupted(what: Interrupted, state: State, settings: Settings) -> None:
    task = state.running[what.task]
    state.busy[task.kind] += what.seconds  # type: ignore[assignment]
    state.interruptions[task.kind] += 1
    if what.requeued and isinstance(task.about, Labelling):
        state.tasks.end(task.id)
        state.attempts[task.id] -= 1
        state.candidates.change(task.about.candidate, status="queued")


def _give_up(state: State, task: Task, reason: str, settings: Settings) -> None:
    """Update the subject of a task that is not tried again."""
    about = task.about
    if isinstance(about, Labelling):
        state.candidates.change(about.candidate, status="failed", reason=reason)
        for walker in waiting(state, about.candidate):
            walker.reset("label failed")
    elif isinstance(about, Scoring):
        for number in about.candidates:
            state.candidates.change(number, looked=about.generation)
    elif isinstance(about, Sampling) and reason in ENDED:
        for number in about.walkers:  # a structure of theirs may crash the worker
            fail_segment(state.walkers[number], reason)
    elif isinstance(about, Evaluating):
        state.evaluation, state.evaluated = None, about.generation


@_change.register
def _damaged(what: Damaged, state: State, settings: Settings) -> None:
    """Discard damaged results, and the tasks that need them."""
    for number in what.labels:
        state.candidates.change(number, status="queued", file=None, discarded=False, reason=DAMAGED)
    for generation, member in what.models:
        state.generations[generation].members.pop(member, None)
    for number in what.walkers:
        state.walkers[number].reset("damaged")
    for number in what.structures:
        state.candidates.change(number, status="dropped", reason="its structure was damaged")
        for walker in waiting(state, number):
            walker.reset("damaged")
    if what.evaluation or what.labels or what.models:
        state.evaluation, state.evaluated = None, -1
    _drop_orphans(state, what.structures)


def _drop_orphans(state: State, candidates: tuple[int, ...]) -> None:
    """Forget the tasks that need an incomplete generation or a lost candidate."""
    lost = {generation.number for generation in state.generations if not generation.complete}
    for task in [*state.running.values(), *state.again]:
        about = task.about
        without_model = isinstance(about, Sampling | Scoring | Evaluating) and about.generation in lost
        if without_model or (isinstance(about, Labelling) and about.candidate in candidates):
            state.tasks.forget(task)
    state.phase_ends = state.phase_ends and bool(state.running)


@_change.register
def _closing(what: Closing, state: State, settings: Settings) -> None:
    state.closing = what.reason


@_change.register
def _finished(what: Finished, state: State, settings: Settings) -> None:
    state.finished, state.message = what.reason, what.message
    for candidate in state.candidates:
        if candidate.status == "queued" and what.reason != "failed":
            state.candidates.change(candidate.id, status="dropped", reason=UNNEEDED)


def _ended(state: State, what: TaskEnded) -> Task:
    task = state.tasks.end(what.task)
    state.hosts.finished(host_of(what.worker))
    state.phase_ends = bool(state.running)
    state.busy[task.kind] += what.seconds  # type: ignore[assignment]
    state.longest[task.kind] = max(state.longest[task.kind], what.seconds)  # type: ignore[assignment]
    return task
