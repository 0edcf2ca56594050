"""The report: what its figures are drawn of, and what its page says."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from matplotlib.figure import Figure
from psiflow_toys.events import happening
from psiflow_toys.events import trained as member

from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.request import Recorded, read_campaign
from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.events import Event
from psiflow_core.potentials.metrics import ErrorTable, errors
from psiflow_core.report.figures import COLOURS, MARKS, learning_curve, logarithmic, parity, uncertainty
from psiflow_core.report.page import write_report
from psiflow_core.report.spans import KINDS, Span, spans, worker_rows
from psiflow_core.report.summary import Evaluation, summarise
from psiflow_core.structures import Label, with_label


@pytest.fixture
def copy(learned: Path, tmp_path: Path) -> Path:
    """The finished campaign, to be written to."""
    return Path(shutil.copytree(learned, tmp_path / "copy", ignore=shutil.ignore_patterns("pools")))


def until(folder: Path, kind: str) -> None:
    """Take the journal back to before the first event of this kind."""
    import sqlite3

    with sqlite3.connect(folder / "journal.sqlite") as journal:
        journal.execute("DELETE FROM events WHERE number >= (SELECT MIN(number) FROM events WHERE kind = ?)", (kind,))
    journal.close()


def text(folder: Path) -> str:
    return write_report(folder).read_text()


def recorded(events: list[Event], like: Recorded) -> Recorded:
    return Recorded(like.store, events, like.settings, like.state)


def test_every_kind_of_task_has_its_own_colour() -> None:
    assert len({COLOURS[kind] for kind in KINDS.values()}) == len(KINDS)


def test_time_that_no_driver_ran_is_not_on_the_timeline(learned: Path) -> None:
    like = read_campaign(learned)
    done = {"task": "t", "worker": "w", "seconds": 2.0}
    labelled = happening("labelled", **done, candidate=0, file="0.json")
    trained = happening("trained", **done, generation=0, member=0, result=member("m"))
    events = [
        Event(1, 100.0, happening("opened")),
        Event(2, 105.0, labelled),
        Event(3, 9000.0, happening("opened")),
        Event(4, 9001.0, labelled),  # began before its session: nobody knows when
        Event(5, 9004.0, trained),
    ]
    found = spans(recorded(events, like))
    assert [(span.session, span.kind, span.begin) for span in found] == [(0, "label", 3.0), (1, "train", 7.0)]


def test_restarted_workers_share_rows() -> None:
    found = [
        Span(0, "a", "label", 0.0, 2.0),
        Span(0, "b", "label", 1.0, 2.0),
        Span(0, "c", "label", 3.0, 1.0),  # a died, and c came instead
        Span(1, "d", "train", 5.0, 1.0),
    ]
    assert worker_rows(found, [2, 2]) == {(0, "a"): 0, (0, "b"): 1, (0, "c"): 0, (1, "d"): 0}


def test_a_running_campaign_has_a_learning_curve(copy: Path) -> None:
    until(copy, "evaluated")
    running = read_campaign(copy)
    assert running.state.evaluation is None
    assert learning_curve(running, None) is not None
    assert "Errors on the validation set, as reported by the training" in text(copy)
    assert "has not ended" in text(copy)


def test_before_the_first_model_there_is_no_learning_curve(copy: Path) -> None:
    until(copy, "trained")
    assert learning_curve(read_campaign(copy), None) is None
    assert "Learning curve" not in text(copy)


def test_the_test_set_is_spoken_of_where_there_is_one(copy: Path) -> None:
    assert "The test set is labelled" in text(copy)
    journal = Journal(copy / "journal.sqlite")
    evaluation = next(event.data["result"] for event in journal.events() if event.kind == "evaluated")
    journal.close()
    state = read_campaign(copy).state
    assert any(state.candidates[number].origin == "test" for number in evaluation["candidates"])
    until(copy, "evaluated")
    assert "The test set is labelled" not in text(copy)


def test_candidates_of_walkers_come_first(learned: Path) -> None:
    page = (learned / "report.html").read_text()
    origins = re.findall(r"</span>[^<]*</td><td>(walker|bootstrap|test)</td>", page)
    assert {"walker", "bootstrap", "test"} <= set(origins)
    assert origins == sorted(origins, key=["walker", "bootstrap", "test"].index)


def test_a_walker_that_never_started_over_has_zero_resets(campaign: Path) -> None:
    assert [walker for walker in read_campaign(campaign).state.walkers if not walker.resets], "there is such a walker"
    walkers = (campaign / "report.html").read_text().partition("<h2>Walkers</h2>")[2].partition("<h2>")[0]
    assert re.search(r"<td>0</td></tr>", walkers)


def test_errors_say_whose_they_are(learned: Path) -> None:
    assert "errors of the committee's mean" in str(summarise(learned))
    assert "Errors of the final potential: the committee" in (learned / "report.html").read_text()


@pytest.fixture
def squeezed() -> Evaluation:
    """A crystal and a molecule, and predictions that are wrong by known amounts."""
    crystal = bulk("Cu")
    labelled = [
        with_label(crystal, Label(-1.0, np.zeros((1, 3)), np.array([0.01, 0.02, 0.03, 0.0, 0.0, 0.0]))),
        with_label(Atoms("H"), Label(-1.0, np.zeros((1, 3)))),
    ]
    stress = [0.013, 0.02, 0.03, 0.0, 0.0, 0.004]
    answers = [{"energy": -1.0, "forces": [[0.0] * 3], "stress": stress}]
    answers.append({"energy": -1.0, "forces": [[0.0] * 3], "stress": None})
    candidates = [Candidate(number, "", "test", "test") for number in range(2)]
    return Evaluation(candidates, labelled, {0: answers}, {})


def test_stresses_are_compared_where_there_are_two(squeezed: Evaluation) -> None:
    found = squeezed.errors(0, "test")
    assert found is not None
    assert found.stress_rmse == pytest.approx(np.sqrt((0.003**2 + 0.004**2) / 6))
    assert found.stress_mae == pytest.approx(0.007 / 6)
    molecule = errors(squeezed.structures[1:], squeezed.predictions[0][1:])
    assert (molecule.stress_rmse, molecule.stress_mae) == (None, None)


def test_stress_has_columns_and_a_panel_where_there_is_any(learned: Path, squeezed: Evaluation) -> None:
    summary = summarise(learned)
    assert "stress" not in str(summary)
    found = squeezed.errors(0, "test")
    assert found is not None
    lines = str(replace(summary, errors=ErrorTable({"test": found}))).splitlines()
    row = next(line for line in lines if line.startswith("test"))
    megapascals = 1e3 * np.array([0.007 / 6, np.sqrt(25e-6 / 6)]) / units.GPa
    assert [float(word) for word in row.split()[-2:]] == pytest.approx(list(megapascals), abs=0.01)
    assert "reference stress component [GPa]" in parity(squeezed)
    molecules = Evaluation(squeezed.candidates[:1], squeezed.structures[1:], {0: squeezed.predictions[0][1:]}, {})
    assert "stress" not in parity(molecules)


@pytest.mark.parametrize("values", [(0.05, 0.06), (0.05, 0.5), (0.011, 3.0), (1e-4, 20.0)])
def test_a_logarithmic_axis_has_few_plain_labels(values: tuple[float, float]) -> None:
    figure = Figure(figsize=(4.8, 3.3))
    axes = figure.subplots()
    axes.plot(values, values)
    logarithmic(axes, "x", values)
    figure.canvas.draw()
    low, high = axes.get_xlim()
    marks = [*zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)]
    shown = [label.get_text() for at, label in marks if low <= at <= high and label.get_text()]
    assert 1 <= len(shown) <= 7
    assert all(float(label) > 0 and "$" not in label for label in shown)
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_generations_have_a_colour_bar_of_whole_numbers_where_there_are_several(learned: Path) -> None:
    found = read_campaign(learned)
    met = [candidate for candidate in found.state.of("walker") if candidate.error and candidate.deviation]
    assert len({candidate.generation for candidate in met}) > 1
    several = uncertainty(found) or ""
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", several.partition("generation")[0].rpartition("axes_2")[2])
    assert "generation" in several
    assert all("." not in text for text in texts)
    for candidate in met:
        found.state.candidates.change(candidate.id, generation=0)
    assert "generation" not in (uncertainty(found) or "generation")


def test_points_of_the_test_set_hide_no_others() -> None:
    assert MARKS["test"]["facecolors"] == "none"
    assert MARKS["test"]["zorder"] < min(MARKS["training"]["zorder"], MARKS["validation"]["zorder"])
