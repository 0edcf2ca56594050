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
from random import Random

import pytest

from psiflow_core import Bootstrap, Budget, Distance, Incremental, Segments, Selection, Stopping, Training, Walking
from psiflow_core.journal import Event
from psiflow_core.learning.campaign import LEARNED, WORK, State, Task
from psiflow_core.learning.ending import conclusion, exhausted, still_closing
from psiflow_core.learning.events import apply, fold
from psiflow_core.learning.planning import plan
from psiflow_core.learning.settings import Settings
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
        )


def drawn_settings(random: Random) -> Settings:
    """Any campaign that a user may ask for."""
    labels = random.randint(1, 30)
    return Settings(
        budget=Budget(
            labels=labels,
            generations=random.choice([None, None, random.randint(1, 6)]),
            hours=random.choice([None, None, random.uniform(0.01, 0.2)]),
        ),
        walkers=random.randint(1, 9),
        committee=random.randint(1, 4),
        schedule=random.choice(["concurrent", "sequential"]),
        bootstrap=Bootstrap(structures=random.randint(1, 12)),
        selection=Selection(validation=random.choice([0.0, 0.1, 0.5])),
        training=Training(
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
        self.begins_with = random.choice(["bootstrap", "bootstrap", "data", "model"])
        self.tests = random.randint(0, 3)
        self.pace = Random(f"pace {seed}")
        """Durations and kills; everything else follows from what a task is, so that the pace does not matter."""
        self.clock = 1e9
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

    def start_planned(self) -> None:
        while True:
            reason = exhausted(self.state, self.settings)
            if reason and self.state.closing is None:
                self.append("closing", {"reason": reason})
            tasks = plan(self.state, self.settings, self.pool_of, self.slots)
            self.check_plan(tasks)
            if not tasks:
                return
            for task in tasks:
                self.append("started", {"task": task.id, "kind": task.kind, "about": task.about})
                self.submit(task.id)

    def conclude(self) -> None:
        end = conclusion(self.state, self.settings)
        if end is not None:
            self.append("finished", {"reason": end[0], "message": end[1]})
        else:
            assert self.state.running, "nothing runs, nothing is planned, and the campaign has not ended"

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
            self.clock, name = heapq.heappop(self.under_way)
            return [name]
        self.clock = max(end for end, _ in self.under_way)
        names = sorted(name for _, name in self.under_way)
        self.under_way.clear()
        return names

    def append(self, kind: str, data: Plain) -> None:
        event = Event(len(self.events) + 1, self.clock, kind, json.loads(json.dumps(data)))
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
        self.settings = settings
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
        return self.state.candidates[task.about["candidate"]].structure

    def finish_label(self, name: str) -> None:
        """A worker puts a label into the store."""
        self.computed[self.computing.pop(name)] += 1

    def chance(self, task: Task) -> Random:
        """What befalls this attempt at a task, whenever it ends."""
        return Random(f"{self.seed}/{task.id}/{self.state.attempts[task.id]}")

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
            return "failed", told | failure | {"message": "by chance", "again": again, "folder": "f", "trace": ""}
        if task.kind == "label":
            return "labelled", told | self.labelled(task, random)
        if task.kind == "train":
            about = {name: task.about[name] for name in ("generation", "member")}
            return "trained", told | about | {"result": invented_model(task.about["member"])}
        if task.kind == "sample":
            return "sampled", told | {"walkers": [self.moved(n, task, random) for n in task.about["walkers"]]}
        if task.kind == "score":
            return "scored", told | {"deviations": [random.expovariate(5.0) for _ in task.about["candidates"]]}
        return "evaluated", told | {"generation": task.about["generation"], "result": {"file": "p.json"}}

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

    def labelled(self, task: Task, random: Random) -> Plain:
        number = task.about["candidate"]
        met = self.state.candidates[number].origin == "walker"
        error = {"force_rmse": random.expovariate(3.0), "energy_per_atom": 0.0} if met else None
        return {
            "candidate": number,
            "file": f"label {number}.json",
            "error": error,
            "reset": error is not None and error["force_rmse"] > 0.8,
            "discard": error is not None and error["force_rmse"] > 1.2,
        }

    def moved(self, number: int, task: Task, random: Random) -> Plain:
        told: Plain = {"walker": number}
        if random.random() < self.world.walker_explodes:
            return told | {"failure": {"type": "WalkerExploded", "reason": "error", "message": "not finite"}}
        told |= {"file": f"{task.id}-{number}", "digest": "d", "steps": 10, "averages": {}, "finished": False}
        if random.random() < self.world.walker_stops:
            told |= {"stopped": random.choice(["too hot", "lost", "force ceiling"])}
            met = {"structure": f"{task.id}-{number}", "deviation": random.expovariate(5.0), "step": 5}
            return told | ({"candidate": met} if random.random() < 0.3 else {})
        known = self.state.generations[task.about["generation"]].known
        deviation = random.expovariate(1.0) / (1.0 + self.world.lesson * known)
        ends = random.random() < self.world.trajectory_ends
        structure, known = f"{task.id}-{number}", self.state.of(*LEARNED, "test")
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
            for number in task.about.get("walkers", ()):
                self.check_may_move(number, task)
            if state.closing and task not in state.again:
                spends = task.kind in ("sample", "score") or (task.kind == "label" and self.paid_by_budget(task))
                assert not spends, f"{task.id} is started although {state.closing} are spent"

    def check_may_move(self, number: int, task: Task) -> None:
        waits_for = self.state.walkers[number].waiting_for
        generation = self.state.generations[task.about["generation"]]
        assert waits_for is None or waits_for in [*generation.training, *generation.validation]
        assert len(generation.members) == self.settings.committee

    def paid_by_budget(self, task: Task) -> bool:
        return self.state.candidates[task.about["candidate"]].origin in ("bootstrap", "walker")

    def check_fates(self) -> None:
        """A candidate has one fate: what has a label keeps it, and nothing that was given up comes back by itself."""
        event = self.events[-1].kind
        for candidate in self.state.candidates:
            before, now = self.fates.get(candidate.id, "queued"), candidate.status
            self.fates[candidate.id] = now
            if before == now:
                continue
            again = event == "opened" and (before, now) in (("dropped", "queued"), ("failed", "queued"))
            assert again or (before, now) in STEPS, f"candidate {candidate.id}: {before} became {now} by '{event}'"

    def check_walkers(self) -> None:
        """No walker waits for a candidate that no model will ever know."""
        for walker in self.state.walkers:
            if walker.waiting_for is not None and self.state.finished is None:
                candidate = self.state.candidates[walker.waiting_for]
                comes = candidate.status in ("queued", "labelling") or candidate.usable
                assert comes, f"walker {walker.id} waits for candidate {candidate.id}, which is {candidate.status}"

    def check_state(self) -> None:
        self.check_fates()
        self.check_walkers()
        state, budget = self.state, self.settings.budget
        assert state.count("labelled") + state.count("labelling") <= budget.labels
        under_way = [*state.running.values(), *state.again]
        labels = [task.about["candidate"] for task in under_way if task.kind == "label"]
        assert len(labels) == len(set(labels)), "a candidate is in two tasks"
        in_labelling = [candidate.id for candidate in state.candidates if candidate.status == "labelling"]
        assert sorted(labels) == in_labelling, "a candidate in labelling has no task, or a task no candidate"
        walkers = [number for task in under_way for number in task.about.get("walkers", ())]
        assert len(walkers) == len(set(walkers)), "a walker is in two tasks"
        trainings = [(task.about["generation"], task.about["member"]) for task in under_way if task.kind == "train"]
        assert len(trainings) == len(set(trainings)), "a member is trained twice at once"
        assert [generation.number for generation in state.generations] == list(range(len(state.generations)))
        for generation in state.generations:
            learned = {state.candidates[number].origin for number in [*generation.training, *generation.validation]}
            assert learned <= {"initial", "bootstrap", "walker"}
            assert not set(generation.training) & set(generation.validation)

    def check_end(self) -> None:
        state = self.state
        labelled = Counter(event.data["candidate"] for event in self.events if event.kind == "labelled")
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
            assert sorted([*state.newest.training, *state.newest.validation]) == usable
            assert state.evaluated == state.newest.number
        if state.finished == "labels":
            assert state.count("labelled") == self.settings.budget.labels

    def check_budget(self) -> None:
        state, budget = self.state, self.settings.budget
        assert state.count("labelled") <= budget.labels
        learned = [one for one in state.generations if one.known and not one.final]
        assert budget.generations is None or len(learned) <= budget.generations


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
        stories.append([(event.kind, event.data) for event in simulation.events])
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

    def moved(self, number: int, task: Task, random: Random) -> Plain:
        new = number == 0 and self.state.walkers[0].segments == 0
        met = {"structure": f"{task.id}-{number}", "deviation": 0.6 if new else 0.0, "step": 10}
        told = {"walker": number, "file": f"{task.id}-{number}", "digest": "d", "steps": 10, "averages": {}}
        return told | {"finished": False, "stopped": "uncertain" if new else None, "candidate": met}


def test_a_campaign_whose_walkers_only_explode_gives_up_and_says_so() -> None:
    for schedule in ("concurrent", "sequential"):
        simulation = without_kills(3, schedule)
        simulation.world.walker_explodes = 1.0
        simulation.settings = simulation.settings.model_copy(update={"budget": Budget(labels=100)})
        state = simulation.run()
        assert state.finished == "failed"
        assert "WalkerExploded" in state.message


def without_kills(seed: int, schedule: str) -> Simulation:
    """A campaign with this schedule that no kill and no clock disturbs."""
    simulation = Simulation(seed)
    simulation.world.kill = 0.0
    budget = simulation.settings.budget.model_copy(update={"hours": None})
    simulation.settings = simulation.settings.model_copy(update={"schedule": schedule, "budget": budget})
    return simulation
