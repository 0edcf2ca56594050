"""What a campaign does next, case by case: the state machine on events written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from psiflow_toys import events
from psiflow_toys.events import failed, happening

from psiflow_core import (
    Bootstrap,
    Budget,
    Distance,
    Incremental,
    Limits,
    Segments,
    Stopping,
    Training,
    Walkers,
    Walking,
    selection,
)
from psiflow_core.components import Met
from psiflow_core.errors import OptionError
from psiflow_core.learning.machine.events import Event, parsed
from psiflow_core.learning.machine.fold import apply, fold
from psiflow_core.learning.machine.planning import plan
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import Evaluating, Labelling, MemberTraining, Sampling, Task, label_task
from psiflow_core.learning.machine.termination import conclusion, exhausted
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.learning.policies.walkers import ErrorThresholds
from psiflow_core.strategies.uncertain import Uncertain
from psiflow_core.structures import Plain

ONE_POOL = {"train": "all", "sample": "all", "label": "all"}


class Story:
    """A campaign told event by event."""

    def __init__(self, slots: int = 4, bootstrap: int = 2, tests: int = 0, **settings: Any) -> None:
        given: dict[str, Any] = {
            "budget": Budget(labels=20),
            "walkers": 3,
            "committee": 2,
            "bootstrap": Bootstrap(structures=bootstrap),
            "training": Training(fewest=2, growth=0.5, validation=0.0),
            "walking": Walking(segment=Segments(batch=1)),
        }
        self.settings = Settings(**{**given, **settings})
        self.slots = {"all": slots}
        self.state = State()
        self.events: list[Event] = []
        self.tell("opened")
        origins = ["atom", *["bootstrap"] * bootstrap, *["test"] * tests]
        self.tell("proposed", candidates=[{"structure": f"{o} {n}", "origin": o} for n, o in enumerate(origins)])

    def tell(self, kind: str, /, **data: Any) -> None:
        event = Event(len(self.events) + 1, 1e9 + len(self.events), happening(kind, **data))
        self.events.append(event)
        apply(self.state, event, self.settings)

    def plan(self) -> list[Task]:
        return plan(self.state, self.settings, ONE_POOL, self.slots)

    def names(self) -> list[str]:
        return [task.id for task in self.plan()]

    def start(self) -> list[Task]:
        """Start all that is planned, until nothing more is."""
        started = []
        while tasks := self.plan():
            for task in tasks:
                self.tell("started", task=task)
            started += tasks
        return started

    def end(self, name: str, **result: Any) -> None:
        """A task comes to a good end."""
        about = self.state.running[name].about
        if isinstance(about, Labelling):
            self.tell(
                "labelled", task=name, **{"candidate": about.candidate, "file": f"{about.candidate}.json", **result}
            )
        elif isinstance(about, MemberTraining):
            model = events.trained(name)
            self.tell("trained", task=name, generation=about.generation, member=about.member, result=model)
        elif isinstance(about, Sampling):
            self.tell("sampled", task=name, walkers=[moved(number, **result) for number in about.walkers])
        elif isinstance(about, Evaluating):
            self.tell("evaluated", task=name, generation=about.generation, result=events.predictions())

    def fail(self, name: str, type: str = "ReferenceFailed", reason: str = "unconverged") -> None:
        again = self.settings.stopping.tries_again(
            self.state.running[name].kind, type, reason, self.state.attempts[name]
        )
        self.tell("failed", task=name, failed=failed(type, reason), again=again)

    def end_all(self, kind: str) -> None:
        for task in self.state.runs(kind):  # type: ignore[arg-type]
            self.end(task.id)

    def with_model(self) -> Story:
        """The bootstrap is labelled and the first generation trained; walkers may move."""
        while self.state.newest is None:
            self.start()
            for name in list(self.state.running):
                self.end(name)
        return self


def moved(walker: int, deviation: float = 0.0, stopped: str | None = None, finished: bool = False) -> Plain:
    """What is told of a walker's segment; with a deviation there is a candidate."""
    told = events.moved(walker, stopped=stopped, finished=finished)
    if deviation:
        told["candidate"] = {"structure": f"met by {walker} at {deviation}", "deviation": deviation, "step": 5}
    return told


def walkers_of(task: Task) -> list[int]:
    """The walkers that a task moves."""
    return list(task.about.walkers) if isinstance(task.about, Sampling) else []


def candidate_of(task: Task) -> int:
    """The candidate that a task labels."""
    assert isinstance(task.about, Labelling)
    return task.about.candidate


def kinds(tasks: Sequence[Task]) -> list[str]:
    return [task.kind for task in tasks]


@pytest.fixture(params=["concurrent", "sequential"])
def schedule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_atoms_and_the_bootstrap_are_labelled_first_then_every_member_is_trained(schedule: str) -> None:
    story = Story(schedule=schedule)
    assert story.names() == ["label-00000", "label-00001", "label-00002"]
    story.start()
    story.end_all("label")
    assert story.names()[0] == "train-000-0"
    assert sorted(task.id for task in story.start()) == ["train-000-0", "train-000-1"]
    assert story.state.newest is None
    story.end_all("train")
    assert story.state.newest is not None
    assert story.state.newest.training == (1, 2)


def test_walkers_move_once_every_member_is_trained(schedule: str) -> None:
    story = Story(schedule=schedule)
    story.start()
    story.end_all("label")
    story.start()
    story.end("train-000-1")
    assert not story.plan()
    story.end("train-000-0")
    assert [walkers_of(task) for task in story.start()] == [[0], [1], [2]]


def test_no_more_is_started_than_there_are_free_workers() -> None:
    story = Story(slots=2)
    assert len(story.start()) == 2
    assert not story.plan()
    story.end("label-00000")
    assert len(story.start()) == 1


def test_the_sequential_schedule_starts_a_phase_as_a_whole() -> None:
    story = Story(slots=1, bootstrap=5, schedule="sequential")
    assert len(story.start()) == 6
    story.end("label-00003")
    assert not story.plan(), "the phase has not ended"


def test_walkers_share_the_free_workers_evenly() -> None:
    story = Story(slots=2, walkers=7, walking=Walking(segment=Segments(batch=32))).with_model()
    assert [walkers_of(task) for task in story.start()] == [[0, 1, 2, 3], [4, 5, 6]]
    few = Story(slots=2, walkers=7, walking=Walking(segment=Segments(batch=3))).with_model()
    assert [walkers_of(task) for task in few.start()] == [[0, 1, 2], [3, 4, 5]]


def test_labels_never_exceed_the_budget_whatever_fails(schedule: str) -> None:
    story = Story(slots=9, bootstrap=6, budget=Budget(labels=4), schedule=schedule, committee=1)
    story.start()
    assert story.state.count("labelling") == 4
    story.fail("label-00001")
    for name in ("label-00000", "label-00002", "label-00003", "label-00004"):
        story.end(name)
    story.start()
    assert story.state.count("labelled") + story.state.count("labelling") == 4
    assert "label-00005" in story.state.running
    story.end("label-00005")
    assert exhausted(story.state, story.settings) == "labels"


def test_the_most_uncertain_candidate_is_labelled_first(schedule: str) -> None:
    story = Story(slots=3, schedule=schedule).with_model()
    story.start()
    for number, deviation in enumerate((0.1, 0.9, 0.4)):
        story.end(f"sample-{number:05d}", deviation=deviation)
    labels = [candidate_of(task) for task in story.plan() if task.kind == "label"]
    spreads = [story.state.candidates[number].deviation for number in labels]
    assert spreads == [0.9, 0.4, 0.1]


def test_what_the_committee_agrees_on_is_no_candidate() -> None:
    story = Story(selection=selection("uncertain", threshold=0.2)).with_model()
    story.start()
    story.end("sample-00000", deviation=0.19)
    story.end("sample-00001", deviation=0.21)
    assert [candidate.walker for candidate in story.state.of("walker")] == [1]


def test_a_committee_of_one_takes_what_it_is_given() -> None:
    story = Story(committee=1, selection=selection("uncertain", threshold=0.2)).with_model()
    story.start()
    story.end("sample-00000", deviation=0.001)
    assert len(story.state.of("walker")) == 1


def stopped_at_candidate(**settings: Any) -> Story:
    """Walker 0 has stopped at candidate 3, which is being labelled."""
    story = Story(slots=1, **settings).with_model() if settings else Story(slots=4).with_model()
    story.start()
    story.end("sample-00000", deviation=0.9, stopped="uncertain")
    story.start()
    assert story.state.walkers[0].waiting_for == 3
    assert "label-00003" in story.state.running
    return story


def test_a_walker_waits_for_the_generation_that_knows_its_candidate() -> None:
    story = stopped_at_candidate()
    story.end("label-00003")
    story.start()
    assert not any(0 in walkers_of(task) for task in story.state.runs("sample"))
    story.end("sample-00001", deviation=0.5)
    story.start()
    story.end_all("label")  # the second new label makes a generation due
    assert {task.id for task in story.start()} >= {"train-001-0"}
    story.start()
    story.end("train-001-0")
    story.start()
    story.end("train-001-1")
    assert 3 in story.state.generations[1].training
    started = [task for task in story.start() if task.kind == "sample"]
    assert [0] in [walkers_of(task) for task in started]
    assert story.state.walkers[0].file == "walker 0", "it goes on from where it stopped"
    assert story.state.walkers[0].waiting_for is None


def test_a_walker_that_was_not_stopped_goes_on_at_once() -> None:
    story = Story(slots=6).with_model()
    story.start()
    story.end("sample-00000", deviation=0.4)
    assert [walkers_of(task) for task in story.start() if task.kind == "sample"] == [[0]]


@pytest.mark.parametrize(
    ("reset", "discard", "starts_over", "learned"),
    [(False, False, False, True), (True, False, True, True), (False, True, True, False), (True, True, True, False)],
)
def test_resetting_a_walker_and_discarding_a_label_are_two_things(
    reset: bool, discard: bool, starts_over: bool, learned: bool
) -> None:
    story = stopped_at_candidate()
    story.end("label-00003", error={"force_rmse": 2.0, "energy_per_atom": 0.1}, reset=reset, discard=discard)
    walker, candidate = story.state.walkers[0], story.state.candidates[3]
    assert (walker.file is None) == starts_over
    assert walker.resets == ({"model error": 1} if starts_over else {})
    assert candidate.usable == learned
    assert candidate.status == "labelled"
    assert story.state.count("labelled") == 3, "it was paid for"


def test_a_walker_whose_label_fails_starts_over() -> None:
    story = stopped_at_candidate()
    story.fail("label-00003")
    assert story.state.walkers[0].resets == {"label failed": 1}
    assert story.state.candidates[3].status == "failed"
    assert "label-00003" not in [task.id for task in story.start()], "it is not tried again"


@pytest.mark.parametrize("reason", ["too hot", "lost", "force ceiling", "atoms too close"])
def test_a_walker_that_went_astray_starts_over_and_proposes_nothing(reason: str) -> None:
    story = Story().with_model()
    story.start()
    story.end("sample-00000", stopped=reason)
    assert story.state.walkers[0].file is None
    assert story.state.walkers[0].resets == {reason: 1}
    assert not story.state.of("walker")


def test_what_was_sound_before_a_walker_went_astray_is_a_candidate_and_the_walker_starts_over() -> None:
    story = Story().with_model()
    story.start()
    story.end("sample-00000", stopped="lost", deviation=0.4)
    assert [candidate.walker for candidate in story.state.of("walker")] == [0]
    assert story.state.walkers[0].resets == {"lost": 1}
    assert story.state.walkers[0].waiting_for is None


@pytest.mark.parametrize("under_way", [True, False])
def test_a_walker_that_has_gone_on_from_where_the_model_was_wrong_starts_over(under_way: bool) -> None:
    story = Story(committee=1, slots=6).with_model()
    story.start()
    story.end("sample-00000", deviation=0.001)
    again = next(task.id for task in story.start() if walkers_of(task) == [0])
    if not under_way:
        story.end(again)
    story.end("label-00003", error={"force_rmse": 9.0, "energy_per_atom": 0.1}, reset=True)
    if under_way:
        assert story.state.walkers[0].resets == {}
        story.end(again, deviation=0.002)
        assert len(story.state.of("walker")) == 1, "what it met on the way from there is not believed"
    assert story.state.walkers[0].file is None
    assert story.state.walkers[0].resets == {"model error": 1}


def test_a_walker_that_has_started_over_since_is_left_alone() -> None:
    story = Story(committee=1, slots=6).with_model()
    story.start()
    story.end("sample-00000", deviation=0.001)
    again = next(task.id for task in story.start() if walkers_of(task) == [0])
    story.tell("sampled", task=again, walkers=[moved(0, stopped="too hot")])
    story.end("label-00003", error={"force_rmse": 9.0, "energy_per_atom": 0.1}, reset=True)
    assert story.state.walkers[0].resets == {"too hot": 1}


def test_a_machine_that_fails_costs_no_walker_its_place() -> None:
    story = Story(slots=1, walking=Walking(segment=Segments(batch=3))).with_model()
    story.start()
    story.end("sample-00000")
    for _ in range(3):
        (task,) = story.start()
        story.fail(task.id, "OSError", "error")
    assert [walker.file for walker in story.state.walkers] == ["walker 0", "walker 1", "walker 2"]
    assert conclusion(story.state, story.settings) == ("failed", "sample-00001 failed 3 times; the last: as it goes")


def test_walkers_that_end_every_worker_start_over() -> None:
    story = Story(slots=1, walking=Walking(segment=Segments(batch=3))).with_model()
    for _ in range(3):
        (task,) = story.start()
        story.fail(task.id, "WorkerLost", "lost worker")
    assert [walker.resets for walker in story.state.walkers] == [{"lost worker": 1}] * 3
    assert conclusion(story.state, story.settings) is None


def test_what_took_too_long_is_tried_again_only_where_it_goes_on_from_a_checkpoint() -> None:
    stopping = Stopping()
    assert stopping.tries_again("train", "WorkerLost", "wall time", 1)
    assert not stopping.tries_again("label", "WorkerLost", "wall time", 1)
    assert stopping.tries_again("label", "WorkerLost", "hung", 2)
    assert not stopping.tries_again("label", "WorkerLost", "hung", 3)


def test_one_exploded_walker_of_a_task_leaves_the_others_alone() -> None:
    story = Story(slots=1, walking=Walking(segment=Segments(batch=3))).with_model()
    (task,) = story.start()
    exploded = {"walker": 1, "failed": failed("WalkerExploded", "error", "not finite")}
    told = [moved(0), exploded, moved(2)]
    story.tell("sampled", task=task.id, walkers=told)
    assert [walker.file for walker in story.state.walkers] == ["walker 0", None, "walker 2"]
    assert [failure.reason for failure in story.state.failures] == ["exploded"]


def test_two_walkers_that_meet_the_same_structure_propose_it_once() -> None:
    story = Story().with_model()
    story.start()
    for number in (0, 1):
        told = moved(number, deviation=0.9, stopped="uncertain")
        told["candidate"]["structure"] = "the same"
        story.tell("sampled", task=f"sample-{number:05d}", walkers=[told])
    assert [candidate.structure for candidate in story.state.of("walker")] == ["the same"]
    assert [walker.waiting_for for walker in story.state.walkers] == [3, 3, None]
    story.start()
    story.fail("label-00003")
    assert [walker.resets.total() for walker in story.state.walkers] == [1, 1, 0]


def test_what_the_machine_did_is_tried_again_and_what_physics_did_is_not() -> None:
    story = Story()
    story.start()
    story.fail("label-00001", "WorkerLost", "lost worker")
    story.fail("label-00002")
    assert story.names() == ["label-00001"]
    for _ in range(2):
        story.start()
        story.fail("label-00001", "WorkerLost", "lost worker")
    assert story.state.attempts["label-00001"] == 3
    assert story.state.candidates[1].status == "failed"


def test_a_training_that_diverges_is_tried_again_as_the_same_generation() -> None:
    story = Story()
    story.start()
    story.end_all("label")
    story.start()
    story.fail("train-000-0", "TrainingFailed", "error")
    story.fail("train-000-1", "TrainingFailed", "error")
    assert sorted(story.names()) == ["train-000-0", "train-000-1"]
    story.start()
    assert len(story.state.generations) == 1
    story.end_all("train")
    assert story.state.newest is not None


def test_a_training_that_fails_three_times_ends_the_campaign_with_its_message() -> None:
    story = Story()
    story.start()
    story.end_all("label")
    for _ in range(3):
        story.start()
        story.fail("train-000-1", "TrainingFailed", "error")
    end = conclusion(story.state, story.settings)
    assert end == ("failed", "train-000-1 failed 3 times; the last: as it goes")


def test_what_would_only_repeat_is_not_tried_again_and_is_told_as_it_was() -> None:
    story = Story()
    story.start()
    story.end_all("label")
    story.start()
    story.fail("train-000-1", "EngineMissing", "error")
    end = conclusion(story.state, story.settings)
    assert end == ("failed", "train-000-1 failed once; the last: as it goes")


def test_an_evaluation_that_fails_costs_the_errors_and_not_the_campaign() -> None:
    story = spent()
    story.start()
    story.end_all("label")
    for _ in range(3):
        story.start()
        (task,) = story.state.runs("evaluate")
        story.fail(task.id, "RuntimeError", "error")
    assert conclusion(story.state, story.settings) == ("labels", "the budget of labels is spent")


def test_a_reopened_campaign_has_all_its_attempts() -> None:
    story = Story()
    story.start()
    story.end_all("label")
    for _ in range(3):
        story.start()
        story.fail("train-000-1", "TrainingFailed", "error")
    story.tell("finished", reason="failed", message="m")
    story.tell("opened")
    story.start()
    story.fail("train-000-1", "WorkerLost", "lost worker")
    assert conclusion(story.state, story.settings) is None


def test_too_many_failed_labels_end_the_campaign() -> None:
    story = Story(slots=20, bootstrap=14, stopping=Stopping(tolerated_failures=0.3))
    story.start()
    for number in range(10, 15):
        story.fail(f"label-{number:05d}")
    end = conclusion(story.state, story.settings)
    assert end is not None
    assert end[0] == "failed"
    assert "5 of 5 labels failed" in end[1]


def test_an_isolated_atom_that_fails_ends_the_campaign() -> None:
    story = Story()
    story.start()
    story.fail("label-00000")
    end = conclusion(story.state, story.settings)
    assert end is not None
    assert "cannot compute an isolated atom" in end[1]


def spent(**settings: Any) -> Story:
    """The budget is spent by the bootstrap alone."""
    story = Story(budget=Budget(labels=2), tests=1, **settings).with_model()
    reason = exhausted(story.state, story.settings)
    assert reason == "labels"
    story.tell("closing", reason=reason)
    return story


def test_after_the_last_label_there_is_an_evaluation_and_then_the_end() -> None:
    story = spent()
    assert kinds(story.start()) == ["evaluate"]
    assert conclusion(story.state, story.settings) is None
    story.end("evaluate-000")
    assert conclusion(story.state, story.settings) == ("labels", "the budget of labels is spent")


def test_a_final_training_is_made_where_it_is_asked_for() -> None:
    story = spent(training=Training(final_steps=1000))
    assert kinds(story.start()) == ["train", "train"]
    story.end_all("train")
    assert story.state.generations[-1].final
    assert kinds(story.start()) == ["evaluate"]


@pytest.mark.parametrize(("final_steps", "trained"), [(1000, False), (None, True)])
def test_nothing_is_trained_that_can_choose_no_label_before_the_final_training(
    final_steps: int | None, trained: bool
) -> None:
    """Two labels make a generation due, and a third is under way: then the budget is spent."""
    training = Training(fewest=2, growth=0.5, validation=0.0, final_steps=final_steps)
    story = Story(slots=9, budget=Budget(labels=5), training=training).with_model()
    story.start()
    for number, task in enumerate(story.state.runs("sample")):
        story.end(task.id, deviation=1.0 + number)
    story.start()
    assert len(story.state.runs("label")) == 3
    for task in story.state.runs("label")[:2]:
        story.end(task.id)
    assert any(task.kind == "train" for task in story.start()) == trained


def test_the_evaluation_waits_for_the_test_labels() -> None:
    story = Story(slots=2, budget=Budget(labels=2), tests=1)
    story.start()
    while story.state.newest is None:
        story.end(next(name for name in story.state.running if name != "label-00003"))
        story.start()
    story.tell("closing", reason="labels")
    assert "label-00003" in story.state.running
    assert not [task for task in story.start() if task.kind == "evaluate"]
    story.end("label-00003")
    assert kinds(story.start()) == ["evaluate"]


def test_what_is_queued_at_the_end_is_dropped_and_comes_back_with_a_larger_budget() -> None:
    story = Story(slots=6, budget=Budget(labels=3)).with_model()
    story.start()
    for number in range(3):
        story.end(f"sample-{number:05d}", deviation=0.1 + number)
    story.start()
    story.end("label-00005")
    story.tell("closing", reason="labels")
    story.tell("finished", reason="labels", message="")
    assert [candidate.status for candidate in story.state.of("walker")] == ["dropped", "dropped", "labelled"]
    assert not story.plan()
    story.settings = story.settings.model_copy(update={"budget": Budget(labels=10)})
    story.tell("opened")
    assert story.state.finished is None
    assert [candidate_of(task) for task in story.plan() if task.kind == "label"] == [4, 3]


def test_a_campaign_has_converged_when_nothing_new_is_met_for_long_enough(schedule: str) -> None:
    story = Story(schedule=schedule, stopping=Stopping(patience=2)).with_model()
    for _ in range(2):
        assert exhausted(story.state, story.settings) is None
        story.start()
        story.end_all("sample")
    assert exhausted(story.state, story.settings) == "converged"


def test_one_quiet_walker_is_no_sign_of_convergence_where_the_others_get_lost(schedule: str) -> None:
    story = Story(schedule=schedule, stopping=Stopping(patience=2)).with_model()
    for _ in range(2):
        assert exhausted(story.state, story.settings) is None
        story.start()
        for task in story.state.runs("sample"):
            story.end(task.id, stopped=None if walkers_of(task) == [0] else "lost")
    assert exhausted(story.state, story.settings) == "stalled"


def test_walkers_that_only_get_lost_are_no_sign_of_convergence(schedule: str) -> None:
    story = Story(schedule=schedule, stopping=Stopping(patience=2)).with_model()
    for _ in range(2):
        story.start()
        for task in story.state.runs("sample"):
            story.end(task.id, stopped="lost")
    assert exhausted(story.state, story.settings) is None
    assert not story.plan()
    end = conclusion(story.state, story.settings)
    assert end is not None
    assert end[0] == "failed"
    assert "lost: 6" in end[1]


def test_optimisations_that_have_ended_rest_until_there_is_a_better_model(schedule: str) -> None:
    story = Story(schedule=schedule, walkers=2).with_model()
    story.start()
    story.end("sample-00000", finished=True)
    story.end("sample-00001", finished=True, deviation=0.3)
    started = story.start()
    assert kinds(started) == ["label"]
    story.end_all("label")
    assert {task.kind for task in story.start()} == {"train"}  # nothing else is left to do, so one label is enough
    story.start()
    story.end_all("train")
    assert [walkers_of(task) for task in story.start()] == [[0], [1]]
    assert [walker.file for walker in story.state.walkers] == [None, None], "they start over"


def test_a_campaign_of_optimisations_ends_when_all_have_ended(schedule: str) -> None:
    story = Story(schedule=schedule, walkers=2).with_model()
    story.start()
    for number in (0, 1):
        story.end(f"sample-{number:05d}", finished=True)
    assert exhausted(story.state, story.settings) == "converged"


def test_generations_and_hours_are_budgets_too() -> None:
    one = Story(budget=Budget(labels=20, generations=1)).with_model()
    assert exhausted(one.state, one.settings) == "generations"
    brief = Story(budget=Budget(labels=20, hours=1.0 / 3600))
    brief.tell("started", task=label_task(0))
    assert exhausted(brief.state, brief.settings) == "hours"


def test_time_between_two_sessions_does_not_count() -> None:
    story = Story()
    elapsed = story.state.elapsed
    later = Event(len(story.events) + 1, story.events[-1].time + 1e6, happening("opened"))
    apply(story.state, later, story.settings)
    assert story.state.elapsed == elapsed


def test_a_campaign_that_never_got_a_label_ends_and_says_so() -> None:
    story = Story(bootstrap=1, budget=Budget(labels=5, hours=1.0 / 3600))
    story.tell("closing", reason="hours")
    for task in story.start():
        story.end(task.id)
    end = conclusion(story.state, story.settings)
    assert end == ("hours", "the budget of hours is spent, before there was a first model")


def test_the_journal_alone_gives_the_state_back(schedule: str) -> None:
    story = Story(schedule=schedule, slots=6).with_model()
    story.start()
    story.end("sample-00001", deviation=0.7, stopped="uncertain")
    story.end("sample-00000", stopped="too hot")
    written = [parsed(e.number, e.time, e.kind, json.dumps(e.what.to_plain())) for e in story.events]
    read = fold(written, story.settings)
    assert read == story.state
    assert plan(read, story.settings, ONE_POOL, story.slots) == story.plan()
    assert set(read.running) == set(story.state.running)


def test_planning_changes_nothing() -> None:
    story = Story().with_model()
    before = fold(story.events, story.settings)
    for _ in range(3):
        story.plan()
        conclusion(story.state, story.settings)
    assert story.state == before


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.4, 0.5])
def test_the_validation_set_is_the_fraction_that_was_asked_for(fraction: float) -> None:
    training = Training(validation=fraction)
    subsets = [training.subset(number) for number in range(100)]
    assert subsets.count("validation") == round(100 * fraction)


def test_what_is_not_a_number_is_not_known() -> None:
    unknown = Met("", float("nan"))
    assert Uncertain().wanted(unknown)
    assert Uncertain().priority(unknown) == float("inf")
    assert not Uncertain().wanted(Met("", 0.01))


def test_thresholds_that_contradict_each_other_are_refused() -> None:
    for threshold, deviation, lost in ((0.6, 0.5, 5.0), (0.1, 5.0, 4.0)):
        walking = Walking(limits=Limits(deviation=deviation, lost=lost))
        with pytest.raises(OptionError, match="must hold"):
            Settings(budget=Budget(labels=5), selection=Uncertain(threshold=threshold), walking=walking)


def test_a_training_without_a_parent_is_as_long_as_the_first() -> None:
    training = Training(steps=500, warm_steps=100, final_steps=900)
    assert training.length(warm=True, final=False) == 100
    assert training.length(warm=False, final=False) == 500
    assert training.length(warm=False, final=True) == 900


@pytest.mark.parametrize(
    ("force", "energy", "deviation", "flagged"),
    [(2.0, 0.01, 0.1, True), (2.0, 0.01, 0.5, False), (0.9, 0.01, 0.01, False), (0.1, 0.5, 0.1, True)],
)
def test_a_label_far_from_what_the_committee_expected_is_flagged_and_used(
    force: float, energy: float, deviation: float, flagged: bool
) -> None:
    error = {"force_rmse": force, "energy_per_atom": energy}
    suspicious = ErrorThresholds().suspects(error, deviation)
    assert suspicious == flagged
    story = stopped_at_candidate()
    story.end("label-00003", error=error, suspicious=suspicious)
    assert story.state.candidates[3].suspicious == flagged
    assert story.state.candidates[3].usable


# Groups of walkers --------------------------------------------------------------------------------------------

COLD, HOT = Walkers(2, temperature=300), Walkers(3, temperature=600)


def test_a_batch_holds_walkers_of_one_group(schedule: str) -> None:
    walking = Walking(segment=Segments(batch=8))
    story = Story(slots=1, walkers=[COLD, HOT], walking=walking, schedule=schedule).with_model()
    moved = [walkers_of(task) for task in story.start() if task.kind == "sample"]
    assert moved == ([[0, 1], [2, 3, 4]] if schedule == "sequential" else [[0, 1]])


def test_a_driver_killed_between_two_starts_makes_the_same_batches() -> None:
    walking = Walking(segment=Segments(batch=2))
    story = Story(slots=1, walkers=[HOT, HOT], walking=walking, schedule="sequential").with_model()
    every = [(task.id, walkers_of(task)) for task in story.plan()]
    assert [walkers for _, walkers in every] == [[0, 1], [2], [3, 4], [5]]
    for started in range(1, 4):
        story.tell("started", task=story.plan()[0])
        story.state = fold(story.events, story.settings)
        assert [(task.id, walkers_of(task)) for task in story.plan()] == every[started:]


def test_no_group_waits_for_ever_where_workers_are_few() -> None:
    story = Story(slots=1, walkers=[COLD, HOT], walking=Walking(segment=Segments(batch=8))).with_model()
    for _ in range(4):
        for task in story.start():
            story.end(task.id)
    assert [walker.segments for walker in story.state.walkers] == [2] * 5


def test_only_the_group_that_has_a_path_goes_along_it() -> None:
    path = Incremental(variable=Distance(atoms=(0, 1)), start=1.0, stop=2.0, steps=9, stiffness=1.0)
    along = Walkers(2, bias=path)
    story = Story(walkers=[COLD, along], stopping=Stopping(patience=2)).with_model()
    for task in story.start():
        story.end(task.id)
    assert [walker.stage for walker in story.state.walkers] == [0, 0, 1, 1]
    assert story.settings.patience == 10, "until the path has been walked"
