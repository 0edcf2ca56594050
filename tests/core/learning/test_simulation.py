"""Whole campaigns on a simulated executor and clock: seeded durations, failures and kills, hundreds of them.

The state machine is the real one, and so is the order of a driver's work; only what tasks give is invented. The
environment variable PSIFLOW_CAMPAIGNS says how many campaigns to try: `make simulate` tries tens of thousands.
"""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import get_args

import pytest
from psiflow_toys.events import failed, happening, moved, predictions

from psiflow_core import Bootstrap, Budget, Distance, Incremental, Segments, Stopping, Training, Walkers, Walking
from psiflow_core.execution.failures import WRONG
from psiflow_core.learning.machine.candidates import LEARNED, PAID, Origin, Status, urgency
from psiflow_core.learning.machine.events import Event, Labelled, parsed
from psiflow_core.learning.machine.fold import apply, fold
from psiflow_core.learning.machine.planning import affordable, plan
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import (
    WORK,
    Evaluating,
    Labelling,
    MemberTraining,
    Sampling,
    Scoring,
    Task,
)
from psiflow_core.learning.machine.termination import conclusion, exhausted, still_closing
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.structures import Plain

MOST_EVENTS = 40_000
"""No campaign here needs half of them, even if nearly every task fails; one that does has lost its way."""

PATH = Incremental(variable=Distance(atoms=(0, 1)), start=1.0, stop=2.0, steps=3, stiffness=1.0)

LAYOUTS = (
    {"train": "all", "sample": "all", "label": "all"},
    {"train": "train", "sample": "sample", "label": "label"},
    {"train": "gpu", "sample": "gpu", "label": "cpu"},
)


class Killed(Exception):
    """The driver died."""


@dataclass
class World:
    """What chance does to a campaign: how likely each kind of failure is, and how fast the potential learns."""

    label_fails: float
    worker_lost: float
    training_diverges: float
    sampling_breaks: float
    walker_explodes: float
    walker_stops: float
    trajectory_ends: float
    walkers_meet: float
    """A walker meets a structure that is a candidate already."""
    kill: float
    lesson: float
    """How much of the spread each label takes away."""
    interrupted: float = 0.0
    """The block of a task ends before the task."""
    elastic: float = 0.0
    """Workers come or go."""

    @classmethod
    def drawn(cls, random: Random) -> World:
        often = random.choice([0.0, 0.05, 0.2])
        return cls(
            label_fails=often * random.random(),
            worker_lost=often * random.random(),
            training_diverges=often * random.random(),
            sampling_breaks=often * random.random(),
            walker_explodes=often * random.random(),
            walker_stops=often * random.random(),
            trajectory_ends=random.choice([0.0, 0.0, 0.3, 0.9]),
            walkers_meet=random.choice([0.0, 0.1]),
            kill=random.choice([0.0, 0.02, 0.1]),
            lesson=random.choice([0.0, 0.1, 0.4]),
            interrupted=random.choice([0.0, 0.1, 0.5]),
            elastic=random.choice([0.0, 0.1, 0.5]),
        )


def drawn_groups(random: Random) -> list[Walkers]:
    """Groups of walkers, some on a path of their own."""
    own = [random.choice([{}, {"temperature": 100 * number}, {"bias": [PATH]}, {"bias": []}]) for number in range(3)]
    return [Walkers(random.randint(1, 3), **one) for one in own[: random.randint(1, 3)]]


def drawn_settings(random: Random) -> Settings:
    """Any campaign that a user may ask for."""
    labels = random.randint(1, 30)
    return Settings(
        budget=Budget(
            labels=labels,
            generations=random.choice([None, None, random.randint(1, 6)]),
            hours=random.choice([None, None, random.uniform(0.01, 0.2)]),
        ),
        walkers=random.choice([random.randint(1, 9), drawn_groups(random)]),
        committee=random.randint(1, 4),
        schedule=random.choice(["concurrent", "sequential"]),
        bootstrap=Bootstrap(structures=random.randint(1, 12)),
        selection="uncertain" if labels % 2 else {"name": "random", "fraction": 0.6},
        training=Training(
            validation=random.choice([0.0, 0.1, 0.5]),
            growth=random.choice([0.1, 0.25, 1.0]),
            fewest=random.randint(1, 6),
            final_steps=random.choice([None, 100]),
        ),
        stopping=Stopping(patience=random.randint(1, 5), tolerated_failures=random.choice([0.3, 0.6])),
        walking=Walking(
            segment=Segments(batch=random.choice([None, 1, 3])),
            bias=[PATH] if labels % 3 == 0 else [],
        ),
    )


class Simulation:
    """One campaign, its journal, its driver and its workers."""

    def __init__(self, seed: int, settings: Settings | None = None, world: World | None = None) -> None:
        random = Random(f"campaign {seed}")
        self.seed = seed
        self.settings = settings or drawn_settings(random)
        self.world = world or World.drawn(random)
        self.pool_of = random.choice(LAYOUTS)
        self.slots = {pool: random.randint(1, 5) for pool in self.pool_of.values()}
        self.present = dict.fromkeys(self.slots, 0) if self.world.elastic else dict(self.slots)
        """Workers that are there."""
        self.expected: Counter[str] = Counter()
        """Planned tasks without a free worker."""
        self.begins_with = random.choice(["bootstrap", "bootstrap", "data", "model"])
        self.tests = random.randint(0, 3)
        self.pace = Random(f"pace {seed}")
        """Durations and kills; everything else follows from what a task is, so that the pace does not matter."""
        self.clock = 1e9
        self.runs = 0
        """How often it was run again after its end."""
        self.events: list[Event] = []
        self.state = State()
        self.under_way: list[tuple[float, str]] = []
        self.computed: Counter[str] = Counter()
        """How often workers finished a label, by structure; one is enough, for it is in the store from then on."""
        self.computing: dict[str, str] = {}
        """What workers are at: structure by task."""
        self.fates: dict[int, str] = {}
        """The status of every candidate after the last event."""
        self.kills = 0

    # The driver ------------------------------------------------------------------------------------------

    def run(self) -> State:
        """Until the campaign ends, through every kill."""
        ended = False
        while not ended:
            try:
                self.session()
                ended = True
            except Killed:
                self.survive_kill()
                ended = self.state.finished is not None
        return self.state

    def session(self) -> None:
        closing = still_closing(self.state, self.settings)
        self.append("opened", {"configuration": {}, "slots": self.slots, "closing": closing})
        if not self.state.candidates:
            self.append("proposed", {"candidates": self.proposals()})
        if self.begins_with == "model" and not self.state.generations:
            members = [invented_model(member) for member in range(self.settings.committee)]
            self.append("adopted", {"members": members})
        for task in self.state.running.values():
            self.submit(task.id)
        while self.state.finished is None:
            self.start_planned()
            self.conclude()
            for name in self.next_ended():
                self.append(*self.outcome(self.state.running[name]))
            if self.state.finished is None:
                self.change_supply()

    def start_planned(self) -> None:
        while True:
            reason = exhausted(self.state, self.settings)
            if reason and self.state.closing is None:
                self.append("closing", {"reason": reason})
            tasks = plan(self.state, self.settings, self.pool_of, self.slots)
            self.check_plan(tasks)
            if self.settings.schedule == "concurrent":
                tasks, self.expected = affordable(tasks, self.pool_of, self.idle())
            if not tasks:
                return
            for task in tasks:
                self.append("started", {"task": task})
                self.submit(task.id)

    def conclude(self) -> None:
        end = conclusion(self.state, self.settings)
        if end is not None:
            self.append("finished", {"reason": end[0], "message": end[1]})
        else:
            going_on = self.state.running or self.expected
            assert going_on, "nothing runs, nothing is planned, and the campaign has not ended"

    def idle(self) -> dict[str, int]:
        """Free workers; none where more were there when tasks began."""
        busy = Counter(self.pool_of[WORK[task.kind]] for task in self.state.running.values())
        return {pool: max(0, present - busy[pool]) for pool, present in self.present.items()}

    def change_supply(self) -> None:
        """Blocks begin and end; tasks of a block that ends go on in another one, or are chosen anew."""
        if self.pace.random() < self.world.elastic or not self.under_way:
            self.present = {pool: self.pace.randint(0, slots) for pool, slots in self.slots.items()}
        for name in list(self.state.running):
            if self.pace.random() < self.world.interrupted / 4:
                self.interrupt(self.state.running[name])

    def interrupt(self, task: Task) -> None:
        self.computing.pop(task.id, None)
        self.under_way = [one for one in self.under_way if one[1] != task.id]
        heapq.heapify(self.under_way)
        paid = task.kind == "label" and self.paid_by_budget(task)
        requeued = paid and not self.state.closing and self.settings.schedule == "concurrent"
        self.append("interrupted", {"task": task.id, "requeued": requeued})
        if not requeued:
            self.submit(task.id)

    def submit(self, name: str) -> None:
        heapq.heappush(self.under_way, (self.clock + self.pace.expovariate(1.0), name))
        task = self.state.running[name]
        if task.kind == "label" and not self.computed[self.structure_of(task)]:
            assert self.structure_of(task) not in self.computing.values(), "two workers compute the same label"
            self.computing[name] = self.structure_of(task)

    def next_ended(self) -> list[str]:
        """As in the driver: one at a time, or a whole phase in the order of its tasks."""
        if self.state.finished is not None:
            return []
        if self.settings.schedule == "concurrent":
            if not self.under_way:
                return []  # no worker is there
            self.clock, name = heapq.heappop(self.under_way)
            return [name]
        for name in list(self.state.running):
            if self.pace.random() < self.world.interrupted:
                self.interrupt(self.state.running[name])
        self.clock = max(end for end, _ in self.under_way)
        names = sorted(name for _, name in self.under_way)
        self.under_way.clear()
        return names

    def append(self, kind: str, data: Plain) -> None:
        told = json.dumps(happening(kind, **data).to_plain())
        event = parsed(len(self.events) + 1, self.clock, kind, told)
        self.events.append(event)
        assert len(self.events) < MOST_EVENTS, "the campaign does not end"
        apply(self.state, event, self.settings)
        self.check_state()
        self.clock += 0.001
        if self.pace.random() < self.world.kill:
            raise Killed

    def survive_kill(self) -> None:
        """All that is left is the journal, which must tell as much as the driver knew, and what workers finished."""
        self.kills += 1
        before = self.state
        for name in list(self.computing):
            if (
                self.pace.random() < 0.5
                and self.failure(before.running[name], self.chance(before.running[name])) is None
            ):
                self.finish_label(name)
        self.computing.clear()
        self.state = fold(self.events, self.settings)
        assert self.state == before
        self.under_way.clear()
        self.clock += 100.0

    def run_again(self, settings: Settings) -> State:
        """After the end, with other budgets, as the driver does."""
        self.settings, self.runs = settings, self.runs + 1
        self.state = fold(self.events, settings)
        self.under_way.clear()
        self.computing.clear()
        if self.state.finished == "failed" or exhausted(self.state, settings) is None:
            return self.run()
        return self.state

    # The workers -----------------------------------------------------------------------------------------

    def proposals(self) -> list[Plain]:
        found = [{"structure": f"atom {symbol}", "origin": "atom"} for symbol in "HO"]
        if self.begins_with == "data":
            found += [{"structure": f"given {n}", "origin": "initial", "file": f"given {n}.json"} for n in range(4)]
        if self.begins_with == "bootstrap":
            number = self.settings.bootstrap.structures
            found += [{"structure": f"bootstrap {n}", "origin": "bootstrap"} for n in range(number)]
        return found + [{"structure": f"test {n}", "origin": "test"} for n in range(self.tests)]

    def structure_of(self, task: Task) -> str:
        return self.state.candidates[candidate_of(task)].structure

    def finish_label(self, name: str) -> None:
        """A worker puts a label into the store."""
        self.computed[self.computing.pop(name)] += 1

    def chance(self, task: Task) -> Random:
        """What befalls this attempt at a task, whenever it ends."""
        again = f"/run {self.runs}" if self.runs else ""  # a task that was given up has another chance
        return Random(f"{self.seed}/{task.id}/{self.state.attempts[task.id]}{again}")

    def outcome(self, task: Task) -> tuple[str, Plain]:
        """What comes of a task: chance, but the same chance whenever it ends."""
        random = self.chance(task)
        told: Plain = {"task": task.id, "seconds": 1.0, "worker": "w"}
        failure = self.failure(task, random)
        finished_first = failure is not None and failure["type"] == "WorkerLost" and random.random() < 0.3
        if task.id in self.computing:
            if failure is None or finished_first:
                self.finish_label(task.id)  # its worker may be lost afterwards
            else:
                del self.computing[task.id]
        if failure and not (task.kind == "label" and self.computed[self.structure_of(task)]):
            attempts = self.state.attempts[task.id]
            again = self.settings.stopping.tries_again(task.kind, failure["type"], failure["reason"], attempts)
            return "failed", told | {"failed": failed(**failure, message="by chance"), "again": again}
        match task.about:
            case Labelling(candidate=number):
                return "labelled", told | self.labelled(number, random)
            case MemberTraining(generation=number, member=member):
                return "trained", told | {"generation": number, "member": member, "result": invented_model(member)}
            case Sampling(walkers=walkers) as about:
                return "sampled", told | {"walkers": [self.moved(n, task.id, about, random) for n in walkers]}
            case Scoring(candidates=candidates):
                return "scored", told | {"deviations": [random.expovariate(5.0) for _ in candidates]}
            case Evaluating(generation=number):
                return "evaluated", told | {"generation": number, "result": predictions()}

    def failure(self, task: Task, random: Random) -> Plain | None:
        if random.random() < self.world.worker_lost:
            return {"type": "WorkerLost", "reason": "lost worker"}
        own: dict[str, tuple[float, Plain]] = {
            "label": (self.world.label_fails, {"type": "ReferenceFailed", "reason": "unconverged"}),
            "train": (self.world.training_diverges, {"type": "TrainingFailed", "reason": "error"}),
            "sample": (self.world.sampling_breaks, {"type": "ValueError", "reason": "error"}),
            "score": (self.world.label_fails, {"type": "ModelCorrupt", "reason": "error"}),
            "evaluate": (0.0, {}),
        }
        chance, failure = own[task.kind]
        return failure if random.random() < chance else None

    def labelled(self, number: int, random: Random) -> Plain:
        met = self.state.candidates[number].origin == "walker"
        error = {"force_rmse": random.expovariate(3.0), "energy_per_atom": 0.0} if met else None
        return {
            "candidate": number,
            "file": f"label {number}.json",
            "error": error,
            "reset": error is not None and error["force_rmse"] > 0.8,
            "discard": error is not None and error["force_rmse"] > 1.2,
        }

    def moved(self, number: int, task: str, about: Sampling, random: Random) -> Plain:
        if random.random() < self.world.walker_explodes:
            return {"walker": number, "failed": failed("WalkerExploded", "error", "not finite")}
        told = moved(number, file=f"{task}-{number}")
        if random.random() < self.world.walker_stops:
            told |= {"stopped": random.choice(["too hot", "lost", "force ceiling"])}
            met = {"structure": f"{task}-{number}", "deviation": random.expovariate(5.0), "step": 5}
            return told | ({"candidate": met} if random.random() < 0.3 else {})
        known = self.state.generations[about.generation].known
        deviation = random.expovariate(1.0) / (1.0 + self.world.lesson * known)
        ends = random.random() < self.world.trajectory_ends
        structure, known = f"{task}-{number}", self.state.of(*LEARNED, "test")
        if known and random.random() < self.world.walkers_meet:
            structure = random.choice(known).structure
        candidate = {"structure": structure, "deviation": deviation, "step": 10}
        return told | {
            "stopped": "uncertain" if deviation > 0.5 else None,
            "finished": ends and deviation <= 0.5,
            "candidate": candidate,
        }

    # What always holds -----------------------------------------------------------------------------------

    def check_plan(self, tasks: list[Task]) -> None:
        state, names = self.state, [task.id for task in tasks]
        assert len(names) == len(set(names)), f"planned twice: {names}"
        assert not set(names) & set(state.running), f"planned although it runs: {names}"
        if self.settings.schedule == "concurrent":
            load = Counter(self.pool_of[WORK[task.kind]] for task in [*state.running.values(), *tasks])
            free = all(load[pool] <= slots for pool, slots in self.slots.items())
            assert free or not tasks, f"more tasks than workers: {load} of {self.slots}"
        for task in tasks:
            if isinstance(task.about, Sampling):
                groups = {self.settings.group_of(number)[0] for number in task.about.walkers}
                assert len(groups) == 1, f"{task.id} mixes walkers of different conditions"
                for number in task.about.walkers:
                    self.check_may_move(number, task.about)
            if state.closing and task not in state.again:
                spends = task.kind in ("sample", "score") or (task.kind == "label" and self.paid_by_budget(task))
                assert not spends, f"{task.id} is started although {state.closing} are spent"

    def check_may_move(self, number: int, about: Sampling) -> None:
        waits_for = self.state.walkers[number].waiting_for
        generation = self.state.generations[about.generation]
        assert waits_for is None or waits_for in [*generation.training, *generation.validation]
        assert len(generation.members) == self.settings.committee

    def paid_by_budget(self, task: Task) -> bool:
        return self.state.candidates[candidate_of(task)].origin in ("bootstrap", "walker")

    def check_fates(self) -> None:
        """A candidate has one fate: what has a label keeps it, and nothing that was given up comes back by itself."""
        event = self.events[-1].kind
        for candidate in self.state.candidates:
            before, now = self.fates.get(candidate.id, "queued"), candidate.status
            self.fates[candidate.id] = now
            if before == now:
                continue
            again = event == "opened" and (before, now) in (("dropped", "queued"), ("failed", "queued"))
            again = again or (event == "interrupted" and (before, now) == ("labelling", "queued"))
            assert again or (before, now) in STEPS, f"candidate {candidate.id}: {before} became {now} by '{event}'"

    def check_walkers(self) -> None:
        """No walker waits for a candidate that no model will ever know."""
        for walker in self.state.walkers:
            if walker.waiting_for is not None and self.state.finished is None:
                candidate = self.state.candidates[walker.waiting_for]
                comes = candidate.status in ("queued", "labelling") or candidate.usable
                assert comes, f"walker {walker.id} waits for candidate {candidate.id}, which is {candidate.status}"

    def check_kept(self) -> None:
        """Whatever the state keeps up to date is what a search finds."""
        self.check_kept_candidates()
        state = self.state
        under_way = [*state.running.values(), *state.again]
        assert all(state.runs(kind) == tuple(t for t in state.running.values() if t.kind == kind) for kind in WORK)
        away = {number for task in under_way if isinstance(task.about, Sampling) for number in task.about.walkers}
        assert {walker.id for walker in state.walkers if state.tasks.has(walker.id)} == away
        complete = [generation for generation in state.generations if generation.complete]
        assert state.newest is (complete[-1] if complete else None)
        assert all(one.candidates == {*one.training, *one.validation} for one in state.generations)
        since = state.failures[state.forgiven :]
        assert state.broken is next((failure for failure in since if failure.type in WRONG), None)
        assert state.fatal is next((failure for failure in reversed(since) if failure.ends_all), None)

    def check_kept_candidates(self) -> None:
        candidates, every = self.state.candidates, list(self.state.candidates)
        found = Counter((candidate.status, candidate.origin) for candidate in every)
        for status, origin in product(get_args(Status), get_args(Origin)):
            assert candidates.count(status, origins=(origin,)) == found[status, origin]
        for origins in (("atom", "initial"), ("test",), LEARNED):
            assert candidates.of(*origins) == [candidate for candidate in every if candidate.origin in origins]
            assert candidates.number_of(*origins) == len(candidates.of(*origins))
        assert list(candidates.usable) == [candidate.id for candidate in every if candidate.usable]
        queued = [candidate for candidate in every if candidate.status == "queued"]
        paid = [candidate for candidate in queued if candidate.origin in PAID]
        assert list(candidates.queue(len(every))) == sorted(paid, key=urgency)
        assert list(candidates.unpaid("atom", "initial", "test")) == [one for one in queued if one.origin not in PAID]
        for number in range(len(self.state.generations) + 1):
            stale = [one.id for one in queued if one.origin == "walker" and one.looked < number]
            assert candidates.stale(number) == stale
        first = {one.structure: one for one in reversed(every) if one.origin in LEARNED}
        assert all(candidates.with_structure(one.structure) is first.get(one.structure) for one in every)

    def check_state(self) -> None:
        self.check_fates()
        self.check_walkers()
        self.check_kept()
        state, budget = self.state, self.settings.budget
        assert state.count("labelled") + state.count("labelling") <= budget.labels
        under_way = [*state.running.values(), *state.again]
        labels = [candidate_of(task) for task in under_way if task.kind == "label"]
        assert len(labels) == len(set(labels)), "a candidate is in two tasks"
        in_labelling = [candidate.id for candidate in state.candidates if candidate.status == "labelling"]
        assert sorted(labels) == in_labelling, "a candidate in labelling has no task, or a task no candidate"
        abouts = [task.about for task in under_way]
        walkers = [number for about in abouts if isinstance(about, Sampling) for number in about.walkers]
        assert len(walkers) == len(set(walkers)), "a walker is in two tasks"
        trainings = [(about.generation, about.member) for about in abouts if isinstance(about, MemberTraining)]
        assert len(trainings) == len(set(trainings)), "a member is trained twice at once"
        assert [generation.number for generation in state.generations] == list(range(len(state.generations)))
        for generation in state.generations:
            learned = {state.candidates[number].origin for number in [*generation.training, *generation.validation]}
            assert learned <= {"initial", "bootstrap", "walker"}
            assert not set(generation.training) & set(generation.validation)

    def check_end(self) -> None:
        state = self.state
        labelled = Counter(event.what.candidate for event in self.events if isinstance(event.what, Labelled))
        assert all(times == 1 for times in labelled.values()), "a candidate was labelled twice"
        assert [candidate.id for candidate in state.candidates] == list(range(len(state.candidates)))
        assert fold(self.events, self.settings) == state
        assert all(times == 1 for times in self.computed.values()), "a label was paid for twice"
        if state.finished == "failed":
            return
        known = {candidate.structure for candidate in state.candidates if candidate.status == "labelled"}
        assert set(self.computed) <= known, f"labels were lost: {set(self.computed) - known}"
        assert all(candidate.reason for candidate in state.candidates if candidate.status in ("failed", "dropped"))
        self.check_budget()
        assert not state.running
        assert not state.again
        assert {candidate.status for candidate in state.candidates} <= {"labelled", "failed", "dropped"}
        usable = [candidate.id for candidate in state.candidates if candidate.usable]
        if usable:
            assert state.newest is not None
            assert sorted(state.newest.candidates) == usable
            assert state.evaluated == state.newest.number
        if state.finished == "labels":
            assert state.count("labelled") == self.settings.budget.labels

    def check_budget(self) -> None:
        state, budget = self.state, self.settings.budget
        assert state.count("labelled") <= budget.labels
        learned = [one for one in state.generations if one.known and not one.final]
        assert budget.generations is None or len(learned) <= budget.generations


def candidate_of(task: Task) -> int:
    assert isinstance(task.about, Labelling)
    return task.about.candidate


STEPS = {
    ("queued", "labelling"),
    ("queued", "labelled"),
    ("queued", "dropped"),
    ("labelling", "labelled"),
    ("labelling", "failed"),
}
"""From status to status: what may become of a candidate; `queued` to `labelled` is a label that was given."""


def invented_model(member: int) -> Plain:
    return {"model": {"path": f"{member}.model", "digest": "d"}, "errors": {"force_rmse": 0.1}, "seconds": 1.0}


SEEDS = range(int(os.environ.get("PSIFLOW_CAMPAIGNS", "400")))


def chunks(seeds: range, size: int) -> list[range]:
    return [range(start, start + size) for start in range(seeds.start, seeds.stop, size)]


@pytest.mark.parametrize("seeds", chunks(SEEDS, 50), ids=lambda seeds: f"seeds-{seeds.start}-{seeds.stop - 1}")
def test_every_campaign_ends_and_keeps_its_promises(seeds: range) -> None:
    for seed in seeds:
        simulation = Simulation(seed)
        try:
            simulation.run()
            simulation.check_end()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize(
    "seeds", chunks(SEEDS[: len(SEEDS) // 4], 50), ids=lambda seeds: f"seeds-{seeds.start}-{seeds.stop - 1}"
)
def test_a_campaign_that_is_hit_by_everything_still_ends(seeds: range) -> None:
    for seed in seeds:
        random = Random(f"storm {seed}")
        storm = World(*(random.choice([0.0, 0.5, 0.95]) for _ in range(8)), kill=0.1, lesson=0.1)
        simulation = Simulation(seed, world=storm)
        simulation.run()
        simulation.check_end()


@pytest.mark.parametrize("seed", range(40))
def test_the_sequential_schedule_does_not_depend_on_which_task_ends_first(seed: int) -> None:
    stories = []
    for pace in (1, 2):
        simulation = without_kills(seed, "sequential")
        simulation.pace = Random(pace)
        simulation.run()
        stories.append([event.what for event in simulation.events])
    assert stories[0] == stories[1]


@pytest.mark.parametrize("seed", range(40))
def test_kills_change_nothing_in_what_a_sequential_campaign_comes_to(seed: int) -> None:
    undisturbed, killed = without_kills(seed, "sequential"), without_kills(seed, "sequential")
    killed.world.kill = 0.1
    undisturbed.run()
    killed.run()
    assert killed.state.finished == undisturbed.state.finished
    if killed.state.finished == "failed":
        return  # it ends at once, and a kill may have hidden a part of the last phase
    assert killed.state.candidates == undisturbed.state.candidates
    assert killed.state.generations == undisturbed.state.generations


@pytest.mark.parametrize("seed", range(40))
def test_ends_of_blocks_change_nothing_in_what_a_sequential_campaign_comes_to(seed: int) -> None:
    undisturbed, cut = without_kills(seed, "sequential"), without_kills(seed, "sequential")
    cut.world.interrupted = 0.5
    undisturbed.run()
    cut.run()
    assert cut.state.interruptions.total() > 0
    assert cut.state.finished == undisturbed.state.finished
    assert cut.state.candidates == undisturbed.state.candidates
    assert cut.state.generations == undisturbed.state.generations


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
def test_an_end_of_a_block_is_no_failure_of_its_task(schedule: str) -> None:
    """Three preemptions of one training did end a campaign; here they are many."""
    interruptions: Counter[str] = Counter()
    for seed in range(10):
        simulation = Simulation(seed, world=World(*[0.0] * 9, lesson=0.4, interrupted=0.9, elastic=0.5))
        simulation.settings = simulation.settings.model_copy(update={"schedule": schedule})
        assert not simulation.run().failures
        interruptions += simulation.state.interruptions
        simulation.check_end()
    assert min(interruptions[kind] for kind in ("label", "train", "sample")) > 3


@pytest.mark.parametrize("seed", range(80))
def test_a_finished_campaign_goes_on_with_a_larger_budget(seed: int) -> None:
    simulation = Simulation(seed)
    first = simulation.run()
    before = first.count("labelled")
    larger = Budget(labels=simulation.settings.budget.labels + 5)
    again = simulation.run_again(simulation.settings.model_copy(update={"budget": larger}))
    simulation.check_end()
    if first.finished in ("labels", "generations", "hours"):
        assert again.count("labelled") > before or again.finished in ("converged", "failed")


@pytest.mark.parametrize("seed", range(40))
def test_the_journal_tells_the_same_whatever_budget_it_is_read_with(seed: int) -> None:
    simulation = Simulation(seed)
    simulation.run()
    simulation.run_again(simulation.settings.model_copy(update={"budget": Budget(labels=60)}))
    smaller = simulation.settings.model_copy(update={"budget": Budget(labels=1, hours=0.001)})
    assert fold(simulation.events, smaller) == simulation.state


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
def test_what_was_mended_is_tried_again(schedule: str) -> None:
    simulation = without_kills(7, schedule)
    simulation.begins_with = "bootstrap"
    simulation.world.label_fails = 1.0
    assert simulation.run().finished == "failed"
    simulation.world.label_fails = 0.0
    assert simulation.run_again(simulation.settings).finished in ("labels", "generations", "converged")
    simulation.check_end()


@pytest.mark.parametrize("seed", range(60))
def test_a_campaign_that_lost_too_many_workers_goes_on_once_they_stay(seed: int) -> None:
    simulation = Simulation(seed, world=World(*[0.0] * 9, lesson=0.4))
    budget = simulation.settings.budget.model_copy(update={"hours": None})
    simulation.settings = simulation.settings.model_copy(update={"budget": budget})
    simulation.world.worker_lost, simulation.world.kill = 0.9, 0.02
    simulation.run()
    simulation.world.worker_lost = 0.2
    for _ in range(20):
        if simulation.run_again(simulation.settings).finished != "failed":
            break
    assert simulation.state.finished != "failed"
    simulation.check_end()


def test_a_walker_that_waits_is_not_left_behind_by_others_that_meet_nothing_new() -> None:
    for schedule in ("concurrent", "sequential"):
        simulation = OneDiscovery(7, schedule)
        assert simulation.run().finished == "converged"
        simulation.check_end()
        assert simulation.state.walkers[0].segments > 1


class OneDiscovery(Simulation):
    """Only the first segment of the first walker meets something new."""

    def __init__(self, seed: int, schedule: str) -> None:
        calm = without_kills(seed, schedule).settings.model_copy(
            update={"budget": Budget(labels=100), "walkers": 3, "committee": 2, "training": Training(fewest=4)}
        )
        super().__init__(seed, calm, World(*[0.0] * 10))
        self.begins_with = "bootstrap"

    def moved(self, number: int, task: str, about: Sampling, random: Random) -> Plain:
        new = number == 0 and self.state.walkers[0].segments == 0
        met = {"structure": f"{task}-{number}", "deviation": 0.6 if new else 0.0, "step": 10}
        return moved(number, file=f"{task}-{number}", stopped="uncertain" if new else None, candidate=met)


def test_a_campaign_whose_walkers_only_explode_gives_up_and_says_so() -> None:
    for schedule in ("concurrent", "sequential"):
        simulation = without_kills(3, schedule)
        simulation.world.walker_explodes = 1.0
        simulation.settings = simulation.settings.model_copy(update={"budget": Budget(labels=100)})
        state = simulation.run()
        assert state.finished == "failed"
        assert "WalkerExploded" in state.message


def without_kills(seed: int, schedule: str) -> Simulation:
    """A campaign with this schedule that no kill, no end of a block and no clock disturbs."""
    simulation = Simulation(seed)
    simulation.world.kill = simulation.world.interrupted = simulation.world.elastic = 0.0
    simulation.present = dict(simulation.slots)
    budget = simulation.settings.budget.model_copy(update={"hours": None})
    simulation.settings = simulation.settings.model_copy(update={"schedule": schedule, "budget": budget})
    return simulation
