"""Campaigns that are interrupted, moved, cut short or contradicted, and go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from psiflow_toys.campaigns import learning, moved_water, run, water
from psiflow_toys.waiting import PATIENCE, wait_until

import psiflow_core as psiflow
from psiflow_core.components import LabelTask
from psiflow_core.errors import StructureError
from psiflow_core.execution.context import Context
from psiflow_core.labels.store import label_file, read_label, write_label
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.online import Result
from psiflow_core.registry.plugins import build
from psiflow_core.structures import Label, Plain, digest, label_of, to_plain, with_label

ASKED = learning(labels=8, schedule="sequential")


@pytest.fixture(scope="module")
def whole(workers: Context, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A campaign that nothing disturbed; to be copied only."""
    return run(tmp_path_factory.mktemp("whole") / "c", workers, ASKED)


def copied(whole: Result, folder: Path, events: int) -> Path:
    """A copy somewhere else, of which the journal has lost all but its first events."""
    shutil.copytree(whole.folder, folder)
    journal = sqlite3.connect(folder / "journal.sqlite")
    journal.execute("DELETE FROM events WHERE number > ?", (events,))
    journal.commit()
    journal.close()
    return folder


def story(folder: Path) -> list[tuple[str, Plain]]:
    """What happened, sessions apart."""
    return [(event.kind, event.what.to_plain()) for event in read_campaign(folder).events if event.kind != "opened"]


@pytest.mark.parametrize("kept", [0.1, 0.4, 0.6, 0.8, 0.99])
def test_what_workers_finished_is_found_in_a_folder_that_was_moved(
    kept: float, whole: Result, workers: Context, tmp_path: Path
) -> None:
    events = len(read_campaign(whole.folder).events)
    folder = copied(whole, tmp_path / "moved", 2 + int(kept * (events - 2)))
    models = {file: file.stat().st_mtime_ns for file in (folder / "models").iterdir()}
    run(folder, workers, ASKED)
    assert story(folder) == story(whole.folder), "seconds and workers too: nothing was computed again"
    assert {file: file.stat().st_mtime_ns for file in (folder / "models").iterdir()} == models


def test_a_result_whose_file_is_damaged_is_computed_again(whole: Result, workers: Context, tmp_path: Path) -> None:
    numbered = [event.number for event in read_campaign(whole.folder).events if event.kind == "trained"]
    folder = copied(whole, tmp_path / "c", numbered[-1] - 1)
    lost = whole.potential.members[-1].file.path.name
    (folder / "models" / lost).write_text("{")
    run(folder, workers, ASKED)
    assert (folder / "models" / lost).read_bytes() == (whole.folder / "models" / lost).read_bytes()
    assert read_campaign(folder).state.finished == "labels"


def test_a_given_model_is_adopted_also_by_the_session_after_one_that_died(
    whole: Result, workers: Context, tmp_path: Path
) -> None:
    asked = learning(labels=2)
    done = run(tmp_path / "whole", workers, asked, model=whole.folder / "potential")
    proposed = next(event.number for event in read_campaign(done.folder).events if event.kind == "proposed")
    folder = copied(done, tmp_path / "c", proposed)
    assert run(folder, workers, asked, model=whole.folder / "potential").state.finished == "labels"
    assert sum(kind == "adopted" for kind, _ in story(folder)) == 1


def test_results_of_an_earlier_end_are_not_taken_for_those_of_a_later_one(
    whole: Result, workers: Context, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(whole.folder, folder)
    early = (folder / "dataset.xyz").read_bytes(), (folder / "results.json").read_bytes()
    larger = learning(labels=10, schedule="sequential")
    run(folder, workers, larger)
    for name, content in zip(("dataset.xyz", "results.json"), early, strict=True):
        (folder / name).write_bytes(content)  # the driver died before it had written them
    assert len(run(folder, workers, larger).dataset) == 10


def test_a_second_campaign_in_the_same_context_gets_only_its_own_outcomes(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=2), folder=tmp_path / "pools") as context:
        interrupted(context, tmp_path / "one", learning(reference=psiflow.reference("toy", delay=1.5)))
        other = psiflow.reference("toy", depth=2.0)
        result = run(tmp_path / "two", context, learning(labels=5, reference=other))
    for structure in result.dataset:
        label = build(other).label(structure, LabelTask(tmp_path))  # type: ignore[attr-defined]
        assert label_of(structure).energy == pytest.approx(label.energy, abs=1e-6)
    files = [candidate.file for candidate in result.state.candidates if candidate.file]
    assert all((result.folder / file).resolve().is_relative_to(result.folder.resolve()) for file in files)


def interrupted(context: Context, folder: Path, asked: psiflow.OnlineLearning) -> None:
    """Run a campaign for four seconds, then press Ctrl-C."""

    def press(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, 4.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(folder, context, asked)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def labelled(energy: float, seed: int = 1, **changed: Any) -> Any:
    (structure,) = moved_water(1, seed)
    forces = changed.get("forces", np.zeros((3, 3)))
    return with_label(structure, Label(energy, forces))


def test_given_labels_stay_the_campaigns_own(workers: Context, tmp_path: Path) -> None:
    data = [labelled(7.0 + seed, seed) for seed in range(4)]
    shared = tmp_path / "labels"
    result = run(tmp_path / "one", workers, learning(labels=1), data=[*data, data[0]], labels=shared)
    assert len(result.state.of("initial")) == 4, "the same structure is learned from once"
    wrong = {digest(structure) for structure in data}
    assert not wrong & {digest(read_label(file)[0]) for file in shared.rglob("*.json")}
    energies = sorted(structure.get_potential_energy() for structure in result.dataset)[-4:]
    assert energies == pytest.approx([7.0, 8.0, 9.0, 10.0])


@pytest.mark.parametrize(
    ("data", "test", "complaint"),
    [
        ([labelled(float("nan"))], (), "not finite"),
        ([labelled(1.0, forces=np.full((3, 3), np.inf))], (), "not finite"),
        ([labelled(1.0), labelled(2.0)], (), "is the same structure with other energy"),
        ([labelled(1.0)], [labelled(1.0)], "test structure 0 is in the data too"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused_at_once(
    data: Any, test: Any, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(StructureError, match=complaint):
        run(tmp_path / "c", None, learning(), data=data, test=test)
    assert not (tmp_path / "c").exists()


def test_equal_starting_structures_are_proposed_once(workers: Context, tmp_path: Path) -> None:
    still = psiflow.Bootstrap(structures=4, amplitude=0.0)
    result = run(tmp_path / "c", workers, learning(labels=3, bootstrap=still), start=water())
    assert len(result.state.of("bootstrap")) == 1
    assert json.loads((result.folder / "results.json").read_text())["event"] == result.state.last


def relabelled(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (folder / "labels").rglob("*.json")}


def test_a_damaged_label_is_noticed_named_and_computed_again_alone(
    whole: Result, workers: Context, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "c"))
    before = relabelled(folder)
    victim = sorted(before)[3]
    text = victim.read_text()
    victim.write_text(text.replace('"energy": -', '"energy": -1', 1))
    assert victim.read_text() != text
    run(folder, workers, ASKED)
    (damaged,) = [data for kind, data in story(folder) if kind == "damaged"]
    assert damaged["files"] == [str(victim.relative_to(folder))]
    after = relabelled(folder)
    assert [file for file in before if after[file] != before[file]] == [victim]
    assert read_label(victim)[0] == read_label(whole.folder / victim.relative_to(folder))[0]
    assert read_campaign(folder).state.finished == "labels"


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_a_damaged_model_is_trained_again(
    content: bytes | None, whole: Result, workers: Context, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "c"))
    victim = folder / "models" / whole.potential.members[0].file.path.name
    good = victim.read_bytes()
    if content is None:
        victim.unlink()
    else:
        victim.write_bytes(content)
    before = relabelled(folder)
    run(folder, workers, ASKED)
    assert victim.read_bytes() == good
    assert relabelled(folder) == before
    assert read_campaign(folder).state.finished == "labels"


def test_a_torn_journal_costs_no_label(whole: Result, workers: Context, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "c"))
    journal = folder / "journal.sqlite"
    os.truncate(journal, journal.stat().st_size // 2 // 4096 * 4096)
    before = relabelled(folder)
    with pytest.warns(UserWarning, match=r"was damaged: its intact beginning was taken over"):
        result = run(folder, workers, ASKED)
    assert relabelled(folder).items() >= before.items()
    assert {digest(structure) for structure in whole.dataset} <= {digest(structure) for structure in result.dataset}
    assert list(folder.glob("journal.damaged-*.sqlite"))


SCRIPT = """
import sys
import psiflow_core as psiflow
from psiflow_toys.campaigns import learning, water

delay, grace = float(sys.argv[2]), float(sys.argv[3])
if __name__ == "__main__":
    with psiflow.Context(psiflow.executor("local", workers=1)) as context:
        asked = learning(labels=5, reference=psiflow.reference("toy", delay=delay))
        asked.run(start=water(), folder=sys.argv[1], context=context, progress=False, grace=grace)
"""


def start(tmp_path: Path, delay: float, grace: float, prelude: str = "") -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(prelude + SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "c"), str(delay), str(grace)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def labelled_so_far(folder: Path) -> int:
    return sum(kind == "labelled" for kind, _ in story(folder)) if (folder / "journal.sqlite").exists() else 0


@pytest.mark.parametrize(("delay", "grace", "waits"), [(4.0, 600.0, True), (600.0, 0.5, False)])
def test_a_driver_that_is_told_to_end_waits_for_what_is_about_to_finish_but_not_for_ever(
    delay: float, grace: float, waits: bool, tmp_path: Path
) -> None:
    driver = start(tmp_path, delay, grace)
    tasks = tmp_path / "c" / "tasks"
    wait_until(lambda: list(tasks.glob("label-*/attempt-*")), driver)
    driver.send_signal(signal.SIGTERM)
    _, told = driver.communicate(timeout=PATIENCE)
    assert "run the same again to continue" in told
    assert labelled_so_far(tmp_path / "c") == waits


def test_a_full_disk_is_told_and_costs_nothing(tmp_path: Path) -> None:
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
    )
    _, told = start(tmp_path, 0.0, 5.0, limit).communicate(timeout=PATIENCE)
    last = told.strip().splitlines()[-1]
    assert last.startswith("psiflow_core.errors.CampaignError: ")
    assert "run the same again" in last or "run the campaign again" in last, last
    before = relabelled(tmp_path / "c")
    _, told = start(tmp_path, 0.0, 5.0).communicate(timeout=PATIENCE)
    assert read_campaign(tmp_path / "c").state.finished == "labels", told
    assert relabelled(tmp_path / "c").items() >= before.items()


@pytest.mark.parametrize("damaged", ["given", "recovered"])
def test_a_damaged_label_that_no_walker_asked_for_is_whole_again(
    damaged: str, whole: Result, workers: Context, tmp_path: Path
) -> None:
    folder, data = tmp_path / "c", ()
    if damaged == "given":
        data = [labelled(7.0 + seed, seed) for seed in range(4)]
        asked = learning(labels=1)
        run(folder, workers, asked, data=data)
        victim = min((folder / "given").iterdir())
    else:  # nobody asked for this label, and it lies in the campaign's store
        asked = ASKED
        reference, (structure,) = psiflow.reference("toy"), moved_water(1, seed=99)
        label = build(reference).label(structure, LabelTask(tmp_path))  # type: ignore[attr-defined]
        victim = label_file(folder / "labels", reference, structure)
        record = {"structure": to_plain(with_label(structure, label)), "reference": reference.to_plain()}
        write_label(victim, record | {"seconds": 1.0})
        with pytest.warns(UserWarning, match="1 label in .* missing from the journal: used"):
            state = run(folder, workers, asked).state
        assert [folder / str(candidate.file) for candidate in state.of("initial")] == [victim]
    before = read_label(victim)[0]
    known = len(read_campaign(folder).state.usable)
    victim.write_text("{")
    state = run(folder, workers, asked, data=data).state
    assert read_label(victim)[0].get_potential_energy() == before.get_potential_energy()
    assert len(state.usable) == known
