"""What comes next: the tasks that a state asks for, the most urgent first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import ceil

from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.generations import Generation
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import (
    WORK,
    Evaluating,
    Labelling,
    MemberTraining,
    Sampling,
    Scoring,
    Task,
    TaskKind,
    label_task,
    training_task,
)
from psiflow_core.learning.machine.termination import all_astray, final_is_trained, only_final_is_left
from psiflow_core.learning.machine.walkers import WalkerRecord
from psiflow_core.learning.policies.settings import Settings


class Workers:
    """How many tasks each pool can still take.

    Under the sequential schedule that does not count: all tasks of a phase start together.
    """

    def __init__(
        self,
        state: State,
        settings: Settings,
        pool_of: Mapping[str, str],
        slots: Mapping[str, int],
        waiting: Collection[str],
    ) -> None:
        self._pool_of = pool_of
        self._free = Counter(slots)
        self._unbounded = settings.schedule == "sequential"
        for kind in WORK:
            self._free[self._pool(kind)] -= state.tasks.count(kind)
        for task in waiting:
            self._free[self._pool(state.running[task].kind)] += 1

    def _pool(self, kind: TaskKind) -> str:
        return self._pool_of[WORK[kind]]

    def free(self, kind: TaskKind) -> int:
        """Workers that have nothing to do and take tasks of this kind."""
        return self._free[self._pool(kind)]

    def take(self, kind: TaskKind) -> bool:
        """Whether a task of this kind may be started."""
        return self._unbounded or self.free(kind) > 0

    def give(self, task: Task) -> None:
        """Let a worker have a task."""
        self._free[self._pool(task.kind)] -= 1


def plan(
    state: State,
    settings: Settings,
    pool_of: Mapping[str, str],
    slots: Mapping[str, int],
    waiting: Collection[str] = (),
) -> list[Task]:
    """The next tasks: the most urgent first, as many as free workers can be.

    Under the sequential schedule all tasks of a phase start together, and the next phase when all have ended: that
    way nothing depends on which ends first, nor on when a driver is killed.

    Args:
        pool_of: the pool that does each kind of work.
        slots: tasks that each pool runs at once.
        waiting: tasks under way that take no worker, for another campaign does them.
    """
    if state.finished is not None or (state.phase_ends and settings.schedule == "sequential"):
        return []
    workers = Workers(state, settings, pool_of, slots, waiting)
    tasks: list[Task] = []
    labelled: set[str] = set()
    for task in _wanted(state, settings, workers, slots[pool_of["sample"]]):
        if not workers.take(task.kind):
            continue
        if task.kind == "label":
            structure = _structure(task, state)
            if structure in labelled or state.tasks.computes(structure):
                continue  # another candidate's label is this one's too
            labelled.add(structure)
        workers.give(task)
        tasks.append(task)
    return tasks


def affordable(
    tasks: Sequence[Task], pool_of: Mapping[str, str], idle: Mapping[str, int]
) -> tuple[list[Task], Counter[str]]:
    """The tasks that begin at once, and by pool the number of those for which there is no free worker yet.

    The latter are not started: once a worker is free, another task may be more urgent.

    Args:
        idle: free workers of each pool.
    """
    begun: Counter[str] = Counter()
    now, later = [], Counter[str]()
    for task in tasks:
        pool = pool_of[WORK[task.kind]]
        if begun[pool] < idle[pool]:
            begun[pool] += 1
            now.append(task)
        else:
            later[pool] += 1
    return now, later


def _wanted(state: State, settings: Settings, workers: Workers, slots: int) -> Iterator[Task]:
    """Everything that could start now, by urgency, as long as there are workers for it.

    Args:
        slots: segments that run at once.
    """
    yield from state.again
    if workers.take("train"):
        yield from _trainings(state, settings)
    if workers.take("score"):
        yield from _scores(state, settings)
    yield from _while_taken(_labels(state, settings), workers)
    if workers.take("sample"):
        yield from _segments(state, settings, workers.free("sample"), slots)
    if workers.take("evaluate"):
        yield from _evaluations(state, settings)
    yield from _while_taken(state.candidates.unpaid("test"), workers)


def _while_taken(candidates: Iterable[Candidate], workers: Workers) -> Iterator[Task]:
    """Tasks that label candidates, until all workers have something to do: queues may be long."""
    if not workers.take("label"):
        return
    for candidate in candidates:
        yield label_task(candidate.id)
        if not workers.take("label"):
            return


def _structure(task: Task, state: State) -> str:
    assert isinstance(task.about, Labelling)
    return state.candidates[task.about.candidate].structure


def _labels(state: State, settings: Settings) -> Iterator[Candidate]:
    """Atoms and labels there were before, then the bootstrap, then walkers' candidates, the most uncertain first.

    Those of the bootstrap and of walkers are within the budget.
    """
    yield from state.candidates.unpaid("atom", "initial")
    if state.closing or (settings.schedule == "sequential" and _lap_goes_on(state, settings)):
        return
    paid = state.candidates.count("labelled", "labelling")
    yield from state.candidates.queue(settings.budget.labels - paid)


def _scores(state: State, settings: Settings) -> Iterator[Task]:
    """The queue, once there is a newer model than those that filled it; sequentially it is empty by then."""
    newest = state.newest
    if newest is None or state.closing or state.runs("score") or settings.schedule == "sequential":
        return
    stale = state.candidates.stale(newest.number)
    if stale and settings.committee > 1:
        about = Scoring(generation=newest.number, candidates=tuple(stale))
        yield Task(id=f"score-{state.started['score']:05d}", about=about)


def _trainings(state: State, settings: Settings) -> Iterator[Task]:
    """The members of the generation in training that have not been started, or of a new one if it is due."""
    generation = state.in_training
    if generation is None:
        if _training_due(state, settings):
            number, final = len(state.generations), state.closing is not None
            yield training_task(number, 0, final, upto=tuple(state.usable))
            for member in range(1, settings.committee):
                yield training_task(number, member, final)
        return
    abouts = (task.about for task in state.tasks.all_of("train"))
    under_way = {about.member for about in abouts if isinstance(about, MemberTraining)}
    for member in range(settings.committee):
        if member not in under_way and member not in generation.members:
            yield training_task(generation.number, member, generation.final)


def _training_due(state: State, settings: Settings) -> bool:
    candidates, newest, usable = state.candidates, state.newest, len(state.usable)
    atoms = candidates.number_of("atom")
    if not usable or candidates.count("labelled", origins=("atom",)) < atoms:
        return False
    if state.closing:
        return not state.count("labelling") and not final_is_trained(state, settings)
    if newest is None:
        return not candidates.count("queued", "labelling", origins=("bootstrap", "initial"))
    fresh = 0 if only_final_is_left(state, settings) else usable - newest.known
    still = not state.runs("sample") and not state.count("labelling")
    if settings.schedule == "sequential":
        return fresh > 0 and still and not state.label_pending and not _behind(state, settings)
    if settings.training.due(fresh, newest.known):
        return True
    return fresh > 0 and ((still and not state.count("queued")) or _only_waiting(state, settings))


def _only_waiting(state: State, settings: Settings) -> bool:
    """Whether nothing new is met any longer, but for walkers that wait for a model that knows their candidate."""
    if state.label_pending:
        return False
    moving = [walker for walker in state.walkers if walker.waiting_for is None]
    return len(moving) < len(state.walkers) and all(walker.idle >= settings.patience for walker in moving)


def _behind(state: State, settings: Settings) -> list[WalkerRecord]:
    """Under the sequential schedule: walkers that have not done this lap's segment, and can."""
    newest = state.newest
    if newest is None or _sated(state, settings):
        return []
    lap = max((walker.segments for walker in state.walkers), default=0)
    return [walker for walker in state.walkers if walker.segments < lap and _may_move(walker, newest)]


def _segments(state: State, settings: Settings, free: int, slots: int) -> Iterator[Task]:
    """Walkers that can move, in batches of equal size and equal conditions that fill the free workers.

    Under the sequential schedule batches do not depend on what is under way: a driver that was killed between
    two starts makes the same ones.
    """
    ready = _ready(state, settings)
    if not ready:
        return
    newest = state.newest
    assert newest is not None
    concurrent = settings.schedule == "concurrent"
    share = ceil(len(ready) / max(1, free)) if concurrent else ceil(settings.trajectories / slots)
    batches = _batches(ready, min(settings.batch, share), settings)
    if concurrent:  # where workers are few, no group waits for ever
        batches = sorted(batches, key=lambda batch: min(walker.segments for walker in batch))[:free]
    for number, batch in enumerate(batches):
        walkers = tuple(walker.id for walker in batch)
        about = Sampling(walkers=walkers, generation=newest.number, progress=state.count("labelled"))
        yield Task(id=f"sample-{state.started['sample'] + number:05d}", about=about)


def _batches(ready: Sequence[WalkerRecord], size: int, settings: Settings) -> list[Sequence[WalkerRecord]]:
    """The walkers, those of equal conditions together, so many at most."""
    alike = [list(one) for _, one in groupby(ready, key=lambda walker: settings.group_of(walker.id)[0])]
    return [group[start : start + size] for group in alike for start in range(0, len(group), size)]


def _ready(state: State, settings: Settings) -> list[WalkerRecord]:
    newest = state.newest
    if newest is None or state.closing or _sated(state, settings):
        return []
    walkers = [walker for walker in state.walkers if not state.tasks.has(walker.id) and _may_move(walker, newest)]
    if settings.schedule == "concurrent":
        return walkers
    behind = {walker.id for walker in _behind(state, settings)}
    if behind:
        return [walker for walker in walkers if walker.id in behind]
    return [] if state.in_training or state.label_pending or _training_due(state, settings) else walkers


def _lap_goes_on(state: State, settings: Settings) -> bool:
    return bool(state.tasks.all_of("sample")) or bool(_behind(state, settings))


def _sated(state: State, settings: Settings) -> bool:
    """Whether more candidates would be of no use now, or walkers do nothing but go astray."""
    spoken_for = state.candidates.count("labelled", "labelling", "queued")
    enough = spoken_for >= settings.budget.labels or state.count("queued") >= 2 * settings.trajectories
    return enough or all_astray(state, settings)


def _may_move(walker: WalkerRecord, newest: Generation) -> bool:
    if walker.settled is not None and walker.settled >= newest.number:
        return False
    return walker.waiting_for is None or walker.waiting_for in newest.candidates


def _evaluations(state: State, settings: Settings) -> Iterator[Task]:
    """Every generation against all labels, once the last one is trained and the test labels are there."""
    newest = state.newest
    if newest is None or state.closing is None or state.tests_pending or state.count("labelling"):
        return
    if state.tasks.all_of("evaluate"):
        return
    if final_is_trained(state, settings) and state.evaluated != newest.number:
        yield Task(id=f"evaluate-{newest.number:03d}", about=Evaluating(generation=newest.number))
