"""The campaign in the terminal: what it says is so."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
from rich.console import Console

import psiflow_core as psiflow
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.fold import apply
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.policies.stopping import Budget
from psiflow_core.report.display import BAR, Pace, Progress, bar, overview, walker_phase
from psiflow_core.report.times import FEWEST, clock, forecast


def shown(what: object) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def logged(folder: Path, capsys: pytest.CaptureFixture[str], last: int | None = None) -> list[str]:
    """What a driver that is not in a terminal prints while a campaign's events come, times apart."""
    campaign, state = read_campaign(folder), State()
    capsys.readouterr()
    with Progress(True, Console(force_terminal=False)).showing(state, campaign.settings, folder) as show:
        for event in campaign.events[:last]:
            apply(state, event, campaign.settings)
            show("")
        show("")
    return [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines() if line.startswith("[")]


def test_no_line_of_the_log_is_said_twice(learned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = logged(learned, capsys)
    assert len(lines) == len(set(lines))


def test_the_log_tells_of_trainings_labels_tests_and_the_end(learned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(logged(learned, capsys))
    generations = read_campaign(learned).state.generations
    for generation in generations:
        assert f"generation {generation.number} with {generation.known} labels" in lines
        assert f"generation {generation.number} is trained: " in lines
    assert "final training: " in lines
    assert "14/14 labels" in lines
    assert "2/2 test labels" in lines
    assert lines.endswith("finished: the budget of labels is spent")


def test_the_error_of_a_generation_is_named_for_whose_it_is(learned: Path) -> None:
    found = read_campaign(learned)
    out = shown(overview(found.state, found.settings, learned))
    assert "members' validation RMSE" in out or "members' training RMSE" in out


def test_nothing_is_forecast_before_walkers_have_given_labels() -> None:
    assert forecast([], 20, 50) is None
    assert forecast([float(n) for n in range(FEWEST - 1)], 20, 50) is None


def test_a_forecast_goes_by_the_latest_labels() -> None:
    slow_then_fast = [100.0 * n for n in range(30)] + [3000.0 + n for n in range(40)]
    assert forecast(slow_then_fast, 80, 90) == pytest.approx(10.0)
    assert forecast(slow_then_fast, 90, 90) is None


def test_trainings_become_rarer_and_the_forecast_knows() -> None:
    evenly_in_the_logarithm = [100.0 * log(n) for n in range(10, 26)]
    told = forecast(evenly_in_the_logarithm, 25, 70, trained=1.0)
    assert told == pytest.approx(100.0 * log(70 / 25))
    assert told < (forecast(evenly_in_the_logarithm, 25, 70, trained=0.0) or 0.0)


def test_a_pace_counts_labels_of_walkers_that_came_while_it_looked() -> None:
    state = State(time=10.0)
    state.candidates.add(Candidate(0, "a", "bootstrap", "training"))
    state.candidates.add(Candidate(1, "b", "walker", "training"))
    pace = Pace(state)
    state.candidates.change(0, status="labelled")
    state.time = 11.0
    pace.look()
    assert pace.times == []
    state.candidates.change(1, status="labelled")
    state.time = 15.0
    pace.look()
    pace.look()
    assert pace.times == [15.0]


def test_a_forecast_says_that_the_final_training_follows(learned: Path) -> None:
    found = read_campaign(learned)
    found.state.closing = found.state.finished = None
    more = found.settings.model_copy(update={"budget": Budget(labels=32)})
    found.state.busy.clear()
    out = shown(overview(found.state, more, learned, times=[10.0 * n for n in range(FEWEST)]))
    assert "about 0:03:00 to the last label, then the final training" in out


def test_the_bar_is_read_without_colour() -> None:
    assert bar(5, 10).plain == "█" * (BAR // 2) + "░" * (BAR // 2)
    assert bar(12, 10).plain == "█" * BAR


def test_without_a_driver_nothing_is_said_to_run(learned: Path) -> None:
    found = read_campaign(learned)
    state = found.state
    before = next(n for n, event in enumerate(found.events) if event.kind == "sampled")
    state = State()
    for event in found.events[:before]:
        apply(state, event, found.settings)
    assert state.runs("sample"), "walkers are under way"
    driven = shown(overview(state, found.settings, learned))
    alone = shown(overview(state, found.settings, learned, driven=False))
    assert "sampling" in driven
    assert "in labelling" in driven
    assert "sampling" not in alone
    assert "segment cut off" in alone
    assert "in labelling" not in alone
    assert "interrupted" in alone


def test_walkers_of_a_finished_campaign_are_at_rest(learned: Path) -> None:
    state = read_campaign(learned).state
    state.walkers[0].waiting_for = 0
    assert {walker_phase(walker, state, moving=()) for walker in state.walkers} == {"at rest"}


def test_a_walker_that_has_relaxed_is_said_to_be_at_its_minimum(learned: Path) -> None:
    state = read_campaign(learned).state
    state.finished = None
    state.walkers[0].settled = state.walkers[0].generation
    state.walkers[0].waiting_for = state.walkers[1].waiting_for = None
    assert [walker_phase(walker, state, moving=()) for walker in state.walkers[:2]] == ["at its minimum", "idle"]


def test_a_finished_campaign_has_no_queue(learned: Path) -> None:
    found = read_campaign(learned)
    assert "queued" not in shown(overview(found.state, found.settings, learned))


@pytest.mark.parametrize("back", [7200.0, 1e9])
def test_the_time_that_has_passed_never_falls(back: float, learned: Path) -> None:
    found, state = read_campaign(learned), State()
    elapsed = [0.0]
    for number, event in enumerate(found.events):  # of a journal that was written by the time of day
        moved = replace(event, time=event.time - (back if number > len(found.events) // 2 else 0.0))
        apply(state, moved, found.settings)
        elapsed.append(state.elapsed)
        assert "-" not in shown(overview(state, found.settings, learned)).partition("time ")[2].partition("   ")[0]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] <= found.state.elapsed
    assert clock(-1.0) == "0:00:00"


def test_the_table_of_walkers_tells_the_conditions_of_groups(learned: Path) -> None:
    found = read_campaign(learned)
    groups = [psiflow.Walkers(1, temperature=300), psiflow.Walkers(2, temperature=psiflow.Ramp(300, 900))]
    several = found.settings.model_copy(update={"walkers": tuple(groups)})
    out = shown(overview(found.state, several, learned))
    assert "T=300 " in out
    assert "T=300→900" in out
    assert "conditions" not in shown(overview(found.state, found.settings, learned)), "all are alike"
