"""What comes next: the tasks that a state asks for, the most urgent first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from math import ceil

from psiflow_core.learning.campaign import (
    DAMAGED,
    WORK,
    Candidate,
    State,
    Task,
    WalkerRecord,
    label_task,
)
from psiflow_core.learning.ending import all_astray, final_is_trained
from psiflow_core.learning.settings import Settings


def plan(
    state: State, settings: Settings, pool_of: dict[str, str], slots: dict[str, int], waiting: Collection[str] = ()
) -> list[Task]:
    """The tasks to start now: the most urgent first, as many as there are free workers.

    Under the sequential schedule all tasks of a phase start together, and the next phase when all have ended: that
    way nothing depends on which ends first, nor on when a driver is killed.

    Args:
        pool_of: the pool that does each kind of work.
        slots: tasks that each pool runs at once.
        waiting: tasks under way that take no worker, for another campaign does them.
    """
    if state.finished is not None or (state.phase_ends and settings.schedule == "sequential"):
        return []
    free = Counter(slots)
    for task in state.running.values():
        free[pool_of[WORK[task.kind]]] -= task.id not in waiting
    computing = {_structure(task, state) for task in state.runs("label")}
    tasks = []
    for task in _wanted(state, settings, pool_of, free, slots):
        pool = pool_of[WORK[task.kind]]
        if task.kind == "label" and _structure(task, state) in computing:
            continue  # another candidate's label is this one's too
        if free[pool] > 0 or settings.schedule == "sequential":
            if task.kind == "label":
                computing.add(_structure(task, state))
            free[pool] -= 1
            tasks.append(task)
    return tasks


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


def _structure(task: Task, state: State) -> str:
    return state.candidates[task.about["candidate"]].structure


def _label_tasks(candidates: Iterable[Candidate]) -> Iterator[Task]:
    for candidate in candidates:
        yield Task(label_task(candidate), "label", {"candidate": candidate.id})


def _labels(state: State, settings: Settings) -> Iterator[Task]:
    """Atoms and labels there were before, then the bootstrap, then walkers' candidates, the most uncertain first.

    Those of the bootstrap and of walkers are within the budget.
    """
    yield from _label_tasks(known for known in state.of("atom", "initial") if known.status == "queued")
    if state.closing or (settings.schedule == "sequential" and _lap_goes_on(state, settings)):
        return
    queued = [candidate for candidate in state.of("bootstrap", "walker") if candidate.status == "queued"]
    queued.sort(key=_urgency)
    paid = state.count("labelled") + state.count("labelling")
    yield from _label_tasks(queued[: max(0, settings.budget.labels - paid)])


def _urgency(candidate: Candidate) -> tuple[bool, bool, float, int]:
    return candidate.reason != DAMAGED, candidate.origin != "bootstrap", -candidate.need, candidate.id


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
        upto = state.usable
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
        return not state.count("labelling") and not final_is_trained(state, settings)
    if newest is None:
        return not any(first.status in ("queued", "labelling") for first in state.of("bootstrap", "initial"))
    fresh = usable - newest.known
    still = not state.runs("sample") and not state.count("labelling")
    if settings.schedule == "sequential":
        return fresh > 0 and still and not state.label_pending and not _behind(state, settings)
    stalled = (still and not state.count("queued")) or _only_waiting(state, settings)
    return settings.training.due(fresh, newest.known) or (fresh > 0 and stalled)


def _only_waiting(state: State, settings: Settings) -> bool:
    """Whether nothing new is met any longer, but for walkers that wait for a model that knows their candidate."""
    moving = [walker for walker in state.walkers if walker.waiting_for is None]
    quiet = all(walker.idle >= settings.patience for walker in moving)
    return quiet and len(moving) < len(state.walkers) and not state.label_pending


def _behind(state: State, settings: Settings) -> list[WalkerRecord]:
    """Under the sequential schedule: walkers that have not done this lap's segment, and can."""
    if _sated(state, settings):
        return []
    lap = max((walker.segments for walker in state.walkers), default=0)
    return [walker for walker in state.walkers if walker.segments < lap and _may_move(state, walker)]


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
    waits = state.in_training or state.label_pending or _training_due(state, settings, len(state.usable))
    return [] if waits else walkers


def _lap_goes_on(state: State, settings: Settings) -> bool:
    tasks = [*state.running.values(), *state.again]
    return any(task.kind == "sample" for task in tasks) or bool(_behind(state, settings))


def _sated(state: State, settings: Settings) -> bool:
    """Whether more candidates would be of no use now, or walkers do nothing but go astray."""
    spoken_for = sum(state.count(status) for status in ("labelled", "labelling", "queued"))
    enough = spoken_for >= settings.budget.labels or state.count("queued") >= 2 * settings.walkers
    return enough or all_astray(state, settings)


def _may_move(state: State, walker: WalkerRecord) -> bool:
    newest = state.newest
    if newest is None or (walker.settled is not None and walker.settled >= newest.number):
        return False
    return walker.waiting_for is None or walker.waiting_for in {*newest.training, *newest.validation}


def _evaluations(state: State, settings: Settings) -> Iterator[Task]:
    """Every generation against all labels, once the last one is trained and the test labels are there."""
    newest = state.newest
    if newest is None or state.closing is None or state.tests_pending or state.count("labelling"):
        return
    if any(task.kind == "evaluate" for task in [*state.running.values(), *state.again]):
        return
    if final_is_trained(state, settings) and state.evaluated != newest.number:
        yield Task(f"evaluate-{newest.number:03d}", "evaluate", {"generation": newest.number})
