"""The end of a segment: the next position of its walker, and the choice of a candidate."""

from __future__ import annotations

from psiflow_core import components
from psiflow_core.execution.tasks.sample import Met
from psiflow_core.learning.machine.candidates import LEARNED, Candidate
from psiflow_core.learning.machine.events import Fallen, Moved
from psiflow_core.learning.machine.state import State, TaskFailure
from psiflow_core.learning.machine.tasks import Sampling, Task
from psiflow_core.learning.machine.walkers import WalkerRecord
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.sampling.monitor import UNCERTAIN
from psiflow_core.sampling.schemes import last_stage


def end_segment(state: State, task: Task, told: Moved | Fallen, settings: Settings) -> None:
    """Put a walker at the end of its segment, or let it start over."""
    assert isinstance(task.about, Sampling)
    walker = state.walkers[told.walker]
    walker.segments += 1
    walker.generation = task.about.generation
    stopped = _failed(state, walker, task, told) if isinstance(told, Fallen) else _moved(state, walker, told)
    if walker.recalled:
        walker.reset(walker.recalled)
        return
    cut = isinstance(told, Moved) and told.cut
    _weigh(state, walker, told.candidate, stopped, settings, cut)
    last = last_stage(settings.bias_of(settings.groups[settings.group_of(walker.id)[0]]))
    if last is not None and stopped is None and not cut:
        walker.advance(last)


def fail_segment(walker: WalkerRecord, reason: str) -> None:
    """Let a walker start over after its worker was lost."""
    walker.segments += 1
    _come_to_nothing(walker, reason)


def waiting(state: State, candidate: int) -> list[WalkerRecord]:
    """The walkers that stopped at a candidate."""
    return [walker for walker in state.walkers if walker.waiting_for == candidate]


def call_back(state: State, candidate: Candidate) -> None:
    """The model was wrong at this candidate: walkers that wait for it, or continued from it, start over."""
    for walker in waiting(state, candidate.id):
        walker.reset("model error")
    if candidate.walker is None:
        return
    author = state.walkers[candidate.walker]
    if author.resets.total() > candidate.starts:
        return
    if state.tasks.has(author.id):
        author.recalled = "model error"
    else:
        author.reset("model error")


def _moved(state: State, walker: WalkerRecord, told: Moved) -> str | None:
    """Update the walker's position; returns the monitor's reason to stop it, if any."""
    walker.file, walker.digest, walker.stopped = told.file, told.digest, told.stopped
    walker.steps += told.steps
    walker.since += told.steps
    walker.temperature = told.averages.get("temperature")
    state.steps += told.steps
    if told.finished:
        walker.settled = walker.generation
    return told.stopped


def _failed(state: State, walker: WalkerRecord, task: Task, told: Fallen) -> str:
    """Record the failure; returns its name."""
    failure = told.failed.failure
    reason = "exploded" if failure.type == "WalkerExploded" else failure.reason
    state.fail(TaskFailure(task, told.failed, reason, walker=walker.id))
    walker.stopped = failure.type
    return failure.type


def _weigh(
    state: State, walker: WalkerRecord, met: Met | None, stopped: str | None, settings: Settings, cut: bool
) -> None:
    """Decide on the candidate of a segment, and on the next position of the walker.

    A shortened segment without a candidate does not count: it has seen less than others.
    """
    if met is not None and settings.selection.wanted(seen(met.structure, met.deviation, settings)):
        walker.progress()
        _propose(state, walker, met, stopped, settings)
    elif not cut:
        _come_to_nothing(walker, stopped)


def seen(structure: str, deviation: float, settings: Settings) -> components.Met:
    """A structure as the selection strategy sees it."""
    return components.Met(structure, deviation if settings.committee > 1 else None)


def _come_to_nothing(walker: WalkerRecord, stopped: str | None) -> None:
    walker.idle += 1
    if stopped:
        walker.astray += 1
        walker.reset(stopped)


def _propose(state: State, walker: WalkerRecord, met: Met, stopped: str | None, settings: Settings) -> None:
    """Queue what the walker met. Walkers that move alike meet the same structure: that is one candidate."""
    candidate = state.candidates.with_structure(met.structure) or _new(state, walker, met, settings)
    if stopped == UNCERTAIN and (candidate.status in ("queued", "labelling") or candidate.usable):
        walker.waiting_for = candidate.id
    elif stopped:
        walker.reset("label failed" if stopped == UNCERTAIN else stopped)


def _new(state: State, walker: WalkerRecord, met: Met, settings: Settings) -> Candidate:
    candidate = Candidate(
        len(state.candidates),
        met.structure,
        "walker",
        settings.training.subset(state.candidates.number_of(*LEARNED)),
        walker=walker.id,
        segment=walker.segments,
        generation=walker.generation,
        deviation=met.deviation,
        need=settings.selection.priority(seen(met.structure, met.deviation, settings)),
        looked=-1 if walker.generation is None else walker.generation,
        starts=walker.resets.total(),
    )
    state.candidates.add(candidate)
    return candidate
