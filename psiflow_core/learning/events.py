"""The state as a fold of the journal: how each kind of event changes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from psiflow_core.errors import CampaignError, PsiflowError
from psiflow_core.journal import Event
from psiflow_core.learning.campaign import (
    DAMAGED,
    LEARNED,
    UNNEEDED,
    Candidate,
    Failure,
    Generation,
    Origin,
    State,
    Task,
    WalkerRecord,
)
from psiflow_core.learning.schemes import last_stage
from psiflow_core.learning.settings import Settings
from psiflow_core.learning.stopping import ALIKE, ENDED
from psiflow_core.sampling import UNCERTAIN
from psiflow_core.structures import Plain


def fold(events: Iterable[Event], settings: Settings, state: State | None = None) -> State:
    """The state after these events.

    Raises:
        CampaignError: one of them is of another version of psiflow.
    """
    state = state or State()
    for event in events:
        with understood(event):
            apply(state, event, settings)
    return state


@contextlib.contextmanager
def understood(event: Event) -> Iterator[None]:
    """Make use of an event whose seal is sound; what cannot be understood of it, another psiflow has written.

    Raises:
        CampaignError: it cannot be understood.
    """
    try:
        yield
    except PsiflowError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CampaignError(
            f"event {event.number} of the journal, '{event.kind}', is not as this psiflow writes it "
            f"({type(error).__name__}: {error}): another version did; go on with that one, or choose another folder"
        ) from error


def apply(state: State, event: Event, settings: Settings) -> None:
    """Let one event change the state.

    Raises:
        CampaignError: this psiflow has no events of this kind.
    """
    if event.kind not in APPLY:
        raise CampaignError(
            f"event {event.number} of the journal is of the kind '{event.kind}', which this psiflow does not know: a "
            "newer psiflow wrote it; go on with that one, or choose another folder"
        )
    if event.kind != "opened" and state.time:
        state.elapsed += max(0.0, event.time - state.time)  # an older journal's clock may have been set back
    state.time, state.last = event.time, event.number
    APPLY[event.kind](state, event.data, settings)


def _opened(state: State, data: Plain, settings: Settings) -> None:
    state.opened.append(data)
    while len(state.walkers) < settings.walkers:
        state.walkers.append(WalkerRecord(len(state.walkers)))
    if state.finished is not None:
        _reopen(state)
    else:
        state.closing = data.get("closing")


def _reopen(state: State) -> None:
    """Go on after the end: with a larger budget, or once what made the campaign give up is mended."""
    failed_before, failed = state.finished == "failed", state.failures[state.forgiven :]
    state.closing, state.finished, state.forgiven = None, None, len(state.failures)
    if failed_before:
        state.attempts.clear()
        if state.evaluation is None:
            state.evaluated = -1
        if state.newest is not None and state.newest.known and any(one.type == ALIKE for one in failed):
            for generation in state.generations[state.newest.number :]:
                generation.members.clear()  # they were all the same: trained anew, by a plugin that is mended
            _drop_orphans(state, set())
        for walker in state.walkers:
            walker.progress()
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
    if "upto" in task.about and task.about["generation"] == len(state.generations):
        training, validation = _split(state, task.about["upto"])
        number, final = task.about["generation"], task.about["final"]
        state.generations.append(Generation(number, training, validation, final, settings.committee))


def _labelled(state: State, data: Plain, settings: Settings) -> None:
    _ended(state, data)
    candidate = state.candidates[data["candidate"]]
    candidate.status, candidate.file = "labelled", data["file"]
    candidate.error, candidate.discarded = data["error"], data["discard"]
    candidate.suspicious = data.get("suspicious", False)
    if candidate.suspicious:
        candidate.reason = "suspicious: far from what the committee expected"
    if candidate.discarded:
        candidate.reason = "discarded: too far from the model"
    if data["reset"] or data["discard"]:
        _call_back(state, candidate)


def _trained(state: State, data: Plain, settings: Settings) -> None:
    _ended(state, data)
    state.generations[data["generation"]].members[data["member"]] = data["result"]
    if state.in_training is None and not state.generations[-1].final:
        for walker in state.walkers:
            walker.progress()


def _adopted(state: State, data: Plain, settings: Settings) -> None:
    members = dict(enumerate(data["members"]))
    state.generations.append(Generation(0, [], [], final=False, committee=len(members), members=members))


def _sampled(state: State, data: Plain, settings: Settings) -> None:
    task = _ended(state, data)
    for told in data["walkers"]:
        walker = state.walkers[told["walker"]]
        walker.segments += 1
        walker.generation = task.about["generation"]
        stopped = _walker_failed(state, walker, task, told["failure"]) if "failure" in told else told["stopped"]
        if "failure" not in told:
            _walker_moved(state, walker, told)
        if walker.recalled:
            walker.reset(walker.recalled)
            continue
        _weigh(state, walker, told.get("candidate"), stopped, settings)
        last = last_stage(settings.walking.bias)
        if last is not None and stopped is None:
            walker.advance(last)


def _walker_moved(state: State, walker: WalkerRecord, told: Plain) -> None:
    walker.file, walker.digest, walker.stopped = told["file"], told["digest"], told["stopped"]
    walker.steps += told["steps"]
    walker.since += told["steps"]
    walker.temperature = told["averages"].get("temperature")
    state.steps += told["steps"]
    if told["finished"]:
        walker.settled = walker.generation


def _weigh(state: State, walker: WalkerRecord, met: Plain | None, stopped: str | None, settings: Settings) -> None:
    """What a segment was good for: a candidate, and where the walker goes from here."""
    if met is not None and (settings.committee == 1 or settings.selection.wanted(met["deviation"])):
        walker.progress()
        _propose(state, walker, met, stopped, settings)
        return
    walker.idle += 1
    if stopped:
        walker.astray += 1
        walker.reset(stopped)


def _propose(state: State, walker: WalkerRecord, proposal: Plain, stopped: str | None, settings: Settings) -> None:
    """Queue what the walker met. Walkers that move alike meet the same structure: that is one candidate."""
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
            starts=walker.resets.total(),
        )
    if stopped == UNCERTAIN and (candidate.status in ("queued", "labelling") or candidate.usable):
        walker.waiting_for = candidate.id
    elif stopped:
        walker.reset("label failed" if stopped == UNCERTAIN else stopped)


def _call_back(state: State, candidate: Candidate) -> None:
    """The model was wrong at this candidate: whoever waits for it, or has gone on from it, starts over."""
    for walker in _waiting(state, candidate.id):
        walker.reset("model error")
    if candidate.walker is None:
        return
    author = state.walkers[candidate.walker]
    if author.resets.total() > candidate.starts:
        return
    under_way = [*state.running.values(), *state.again]
    if any(task.kind == "sample" and author.id in task.about["walkers"] for task in under_way):
        author.recalled = "model error"
    else:
        author.reset("model error")


def _walker_failed(state: State, walker: WalkerRecord, task: Task, failure: Plain) -> str:
    """Write the failure down; returns its name."""
    reason = "exploded" if failure["type"] == "WalkerExploded" else failure["reason"]
    state.failures.append(
        Failure(
            task.id,
            "sample",
            reason,
            failure["message"],
            False,
            failure["type"],
            whole=False,
            plugin=failure.get("plugin", ""),
            where=failure.get("where", ""),
        )
    )
    walker.stopped = str(failure["type"])
    return walker.stopped


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
    attempts = state.attempts[task.id]
    state.failures.append(
        Failure(
            task.id,
            task.kind,
            data["reason"],
            data["message"],
            data["again"],
            data["type"],
            attempts,
            plugin=data.get("plugin", ""),
            where=data.get("where", ""),
        )
    )
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
    elif task.kind == "sample" and data["reason"] in ENDED:
        for number in task.about["walkers"]:  # what they met may be what ends the worker
            walker = state.walkers[number]
            walker.segments += 1
            _weigh(state, walker, None, data["reason"], settings)
    elif task.kind == "evaluate":
        state.evaluation, state.evaluated = None, task.about["generation"]


def _damaged(state: State, data: Plain, settings: Settings) -> None:
    """What a disk has damaged is taken back, and so are the tasks that need it."""
    for number in data["labels"]:
        candidate = state.candidates[number]
        candidate.status, candidate.file, candidate.discarded, candidate.reason = "queued", None, False, DAMAGED
    for generation, member in data["models"]:
        state.generations[generation].members.pop(member, None)
    for number in data["walkers"]:
        state.walkers[number].reset("damaged")
    for number in data.get("structures", ()):
        candidate = state.candidates[number]
        candidate.status, candidate.reason = "dropped", "its structure was damaged"
        for walker in _waiting(state, number):
            walker.reset("damaged")
    if data["evaluation"] or data["labels"] or data["models"]:
        state.evaluation, state.evaluated = None, -1
    _drop_orphans(state, set(data.get("structures", ())))


def _drop_orphans(state: State, candidates: set[int]) -> None:
    """Forget the tasks that need a generation which is not complete any longer, or a candidate that is lost."""
    lost = {generation.number for generation in state.generations if not generation.complete}
    for task in [*state.running.values(), *state.again]:
        gone = task.about.get("generation") in lost or task.about.get("candidate") in candidates
        if task.kind != "train" and gone:
            state.running.pop(task.id, None)
            state.again = [other for other in state.again if other.id != task.id]
    state.phase_ends = state.phase_ends and bool(state.running)


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
    "damaged": _damaged,
    "closing": _closing,
    "finished": _finished,
}


def _ended(state: State, data: Plain) -> Task:
    task = state.running.pop(data["task"])
    state.phase_ends = bool(state.running)
    state.busy[task.kind] += data["seconds"]
    return task


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
