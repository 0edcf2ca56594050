"""Whole campaigns with the toy components, on real worker processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from psiflow_toys.campaigns import learning, moved_water, run
from psiflow_toys.waiting import survivors, wait_until

import psiflow_core as psiflow
from psiflow_core.components import LabelTask, Spec
from psiflow_core.errors import CampaignError, StructureError
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.sample import read_walker
from psiflow_core.labels.store import read_label
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import Event, Labelled, Moved, Sampled, Started
from psiflow_core.learning.machine.tasks import Sampling
from psiflow_core.online import Result
from psiflow_core.potentials.trained import ModelFile
from psiflow_core.processes import guard
from psiflow_core.registry.plugins import build
from psiflow_core.structures import digest, isolated_atom, label_of


@pytest.fixture(scope="module")
def finished(workers: Context, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A campaign that has come to its end; to be looked at only."""
    return run(tmp_path_factory.mktemp("finished") / "c", workers, learning(), test=UNSEEN)


STURDY = molecule("SO2")
"""Its isolated atoms are not among those that the toy reference fails on."""

UNSEEN = moved_water(3, 2)
"""The test set of `finished`."""


def events(folder: Path) -> list[Event]:
    return read_campaign(folder).events


def computed(folder: Path) -> int:
    """Labels that a worker computed, by the journal."""
    return sum(1 for event in events(folder) if isinstance(event.what, Labelled) and not event.what.cached)


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
def test_a_campaign_ends_with_its_budget_spent(schedule: str, workers: Context, tmp_path: Path) -> None:
    result = run(tmp_path / "c", workers, learning(labels=8, schedule=schedule), test=UNSEEN[:1])
    assert result.state.finished == "labels"
    assert result.summary.labels == 8
    assert {"training", "validation", "test"} == set(result.summary.errors)
    assert result.state.generations[-1].known == 8 > result.state.generations[0].known
    assert "<svg" in result.report.read_text()


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
def test_a_campaign_of_relaxations_ends_where_the_potential_knows_the_minima(
    schedule: str, workers: Context, tmp_path: Path
) -> None:
    relaxing = learning(
        labels=60,
        schedule=schedule,
        sampler=psiflow.sampler("ase", ensemble="optimise", fmax=0.02),
        selection=psiflow.selection("uncertain", threshold=0.02),
        walking=psiflow.Walking(limits=psiflow.Limits(lost=500.0, force=1e4)),
    )
    result = run(tmp_path / "c", workers, relaxing, start=moved_water(3, 4))
    assert result.state.finished == "converged"
    assert {walker.settled for walker in result.state.walkers} == {result.state.newest.number}
    for walker in result.state.walkers:
        relaxed = read_walker(ModelFile(result.folder / walker.file, walker.digest)).structure
        forces = result.potential.predict([relaxed])[0].forces  # the mean, where one member moved the walker
        assert np.linalg.norm(forces, axis=1).max() < 0.02 + 0.02


def test_the_test_set_is_labelled_but_never_learned_from(finished: Result) -> None:
    seen = set()
    for manifest in (finished.folder / "tasks").glob("train-*.json"):
        content = json.loads(manifest.read_text())
        files = [finished.folder / file for file in [*content["training"], *content["validation"]]]
        seen |= {digest(read_label(file)[0]) for file in files}
    assert len(seen) == finished.summary.labels == 12
    assert not seen & {digest(structure) for structure in UNSEEN}
    assert finished.summary.test_labels == 3


def test_the_data_set_says_where_each_structure_is_from(finished: Result) -> None:
    structures = ase.io.read(finished.folder / "dataset.xyz", index=":")
    origins = Counter(structure.info["psiflow_origin"] for structure in structures)
    assert origins == {"bootstrap": 4, "walker": 8, "test": 3}
    told_of_walkers = {"psiflow_walker", "psiflow_segment", "psiflow_generation", "psiflow_deviation"}
    for structure in structures:
        assert structure.info["psiflow_status"] in ("labelled", "discarded")
        if structure.info["psiflow_origin"] == "walker":
            assert told_of_walkers <= set(structure.info)
    for structure, known in zip(structures, finished.dataset.provenance, strict=True):
        assert known.origin == structure.info["psiflow_origin"]
        assert known.extra["subset"] == structure.info["psiflow_subset"]
        assert known.reference == finished_reference()


def test_the_result_evaluates_its_potential_as_the_campaign_did(finished: Result) -> None:
    found = finished.evaluate(finished.dataset)
    assert set(found) == {*finished.summary.errors, "all"}
    assert found["all"].structures == len(finished.dataset)
    for subset in finished.summary.errors:
        assert found[subset].force_rmse == pytest.approx(finished.summary.errors[subset].force_rmse)
        assert found[subset].energy_mae == pytest.approx(finished.summary.errors[subset].energy_mae)
    few = finished.evaluate(list(finished.dataset[:2]))
    assert set(few) == {"all"}
    assert few["all"].structures == 2
    assert "force" in str(few)
    with pytest.raises(StructureError, match="no structure"):
        finished.evaluate([])
    with pytest.raises(StructureError, match="no label"):
        finished.evaluate([molecule("H2O")])


def test_the_result_has_a_calculator(finished: Result) -> None:
    structure = finished.dataset[0]
    structure.calc = finished.calculator()
    assert structure.get_potential_energy() == pytest.approx(finished.potential.predict([structure])[0].energy)


def test_the_result_knows_every_segment_of_which_frames_were_kept(
    finished: Result, workers: Context, tmp_path: Path
) -> None:
    walking = learning().walking
    kept = walking.model_copy(update={"segment": psiflow.Segments(steps=10, check_every=5, stride=2)})
    result = run(tmp_path / "c", workers, learning(labels=8, walking=kept))
    walked: Counter[int] = Counter()
    for segment in result.trajectories:
        walked[segment.walker] += 1
        newest = result.state.walkers[segment.walker].generation
        assert newest is not None
        assert segment.segment == walked[segment.walker]
        assert segment.generation <= newest
        assert 1 <= len(segment.frames) <= 5
        assert all(len(frame) == 3 and np.isfinite(frame.get_forces()).all() for frame in segment.frames)
    assert set(walked) <= {walker.id for walker in result.state.walkers}
    assert walked.total() > 0
    assert finished.trajectories == []


def test_the_data_set_holds_what_the_reference_says(finished: Result, tmp_path: Path) -> None:
    for structure in finished.dataset[::4]:
        label = build(finished_reference()).label(structure, LabelTask(tmp_path))
        assert label_of(structure).energy == pytest.approx(label.energy, abs=1e-6)
        np.testing.assert_allclose(label_of(structure).forces, label.forces, atol=1e-6)


def finished_reference() -> Spec:
    return learning().reference


def test_a_finished_campaign_returns_at_once_and_starts_no_worker(finished: Result) -> None:
    files = [finished.folder / name for name in ("journal.sqlite", "report.html", "dataset.xyz")]
    before = [file.read_bytes() for file in files]
    again = run(finished.folder, None, learning(), test=UNSEEN)
    assert again.state == finished.state
    assert [file.read_bytes() for file in files] == before
    assert not list((finished.folder / "pools").iterdir())


def test_a_larger_budget_goes_on_and_computes_nothing_again(workers: Context, tmp_path: Path) -> None:
    run(tmp_path / "c", workers, learning(labels=6))
    before = label_times(tmp_path / "c")
    result = run(tmp_path / "c", workers, learning(labels=10))
    assert result.summary.labels == 10
    after = label_times(tmp_path / "c")
    assert {file: after[file] for file in before} == before
    assert computed(tmp_path / "c") == len(after) == 10 + 2  # and two isolated atoms


def test_another_configuration_is_refused_by_the_name_of_what_differs(finished: Result) -> None:
    other = learning(reference=psiflow.reference("toy", depth=2.0), committee=3)
    differences = r"committee was 2 and is now 3.*reference\.depth was 1\.0 and is now 2\.0.*choose another folder"
    with pytest.raises(CampaignError, match=differences):
        run(finished.folder, None, other, test=UNSEEN)
    with pytest.raises(CampaignError, match="start was"):
        run(finished.folder, None, test=UNSEEN, start=[molecule("CH4")])
    with pytest.raises(CampaignError, match="test was"):
        run(finished.folder, None)


def test_campaigns_that_share_labels_compute_none_twice(workers: Context, tmp_path: Path) -> None:
    shared = tmp_path / "labels"
    for name in ("one", "two"):
        run(tmp_path / name, workers, learning(labels=6, schedule="sequential"), labels=shared)
    assert computed(tmp_path / "one") == 6 + 2
    assert computed(tmp_path / "two") == 0


def test_equal_seeds_give_equal_data_sets_under_the_sequential_schedule(workers: Context, tmp_path: Path) -> None:
    asked = learning(labels=10, schedule="sequential", seed=5)
    stories = [run(tmp_path / name, workers, asked).state for name in ("one", "two")]
    first, second = ([candidate.structure for candidate in state.candidates] for state in stories)
    assert len(first) >= 12
    assert first == second


def test_isolated_atoms_are_labelled_once_with_the_spin_of_their_ground_state(finished: Result) -> None:
    result = finished
    atoms = result.state.of("atom")
    structures = [read_label(result.folder / (atom.file or ""))[0] for atom in atoms]
    assert {str(atom.symbols): atom.info["spin"] for atom in structures} == {"H": 2, "O": 3}
    assert [atom.structure for atom in atoms] == [digest(isolated_atom(symbol)) for symbol in ("H", "O")]
    manifest = json.loads(next((result.folder / "tasks").glob("train-000-*.json")).read_text())
    assert manifest["atomic_energies"] == {"H": -1.0, "O": -8.0}
    assert all(one.origin != "atom" for one in result.dataset.provenance)


def test_given_labels_take_the_place_of_a_bootstrap(finished: Result, workers: Context, tmp_path: Path) -> None:
    data = finished.dataset[:5]
    result = run(tmp_path / "two", workers, learning(labels=3), data=data)
    assert not result.state.of("bootstrap")
    assert len(result.state.of("initial")) == len(data)
    assert result.state.generations[0].known == len(data)
    assert result.summary.labels == 3


def test_a_given_model_samples_from_the_first_moment(finished: Result, workers: Context, tmp_path: Path) -> None:
    given = finished.potential
    result = run(tmp_path / "two", workers, learning(labels=3), model=finished.folder / "potential")
    assert not result.state.of("bootstrap", "initial")
    adopted = result.state.generations[0]
    assert [adopted.members[n].model.digest for n in range(2)] == [member.file.digest for member in given.members]
    assert {candidate.generation for candidate in result.state.of("walker")} >= {0}


def test_the_potential_is_a_calculator_in_a_process_of_its_own(finished: Result) -> None:
    script = (
        "import sys, psiflow_core as psiflow; from ase.build import molecule\n"
        "atoms = molecule('H2O'); atoms.calc = psiflow.TrainedPotential.load(sys.argv[1]).calculator()\n"
        "print(repr(float(atoms.get_potential_energy())))"
    )
    command = [sys.executable, "-c", script, str(finished.folder / "potential")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    here = molecule("H2O")
    here.calc = finished.potential.calculator()
    assert float(told.stdout) == here.get_potential_energy()


def test_the_temperature_ramp_reaches_the_sampler(workers: Context, tmp_path: Path) -> None:
    limits = psiflow.Limits(deviation=1e3, lost=1e4, force=1e6, temperature_quantile=1e-300)
    ramps = {"temperature": psiflow.Ramp(10.0, 4000.0)}
    walking = psiflow.Walking(segment=psiflow.Segments(steps=40, check_every=10), limits=limits, ramps=ramps)
    asked = learning(labels=22, walkers=6, sampler=psiflow.sampler("ase", friction=200.0), walking=walking)
    run(tmp_path / "c", workers, asked)
    journal = events(tmp_path / "c")
    started = [event.what.task for event in journal if isinstance(event.what, Started)]
    progress = {task.id: task.about.progress for task in started if isinstance(task.about, Sampling)}
    temperatures = [
        (progress[event.what.task], told.averages["temperature"])
        for event in journal
        if isinstance(event.what, Sampled)
        for told in event.what.walkers
        if isinstance(told, Moved)
    ]
    cold = [kelvin for labels, kelvin in temperatures if labels < 8]
    hot = [kelvin for labels, kelvin in temperatures if labels > 14]
    assert np.mean(hot) > 1.5 * np.mean(cold)


def test_a_campaign_whose_reference_fails_too_often_gives_up_with_the_reason(workers: Context, tmp_path: Path) -> None:
    failing = learning(
        reference=psiflow.reference("toy", fail_fraction=0.5), bootstrap=psiflow.Bootstrap(structures=12)
    )
    with pytest.raises(CampaignError, match=r"labels failed.*one of those that the toy fails on"):
        run(tmp_path / "c", workers, failing, start=[STURDY])
    assert read_campaign(tmp_path / "c").state.finished == "failed"


def test_failed_labels_are_counted_and_the_campaign_goes_on(workers: Context, tmp_path: Path) -> None:
    failing = learning(
        reference=psiflow.reference("toy", fail_fraction=0.3),
        bootstrap=psiflow.Bootstrap(structures=10),
        stopping=psiflow.Stopping(tolerated_failures=0.9),
    )
    result = run(tmp_path / "c", workers, failing, start=[STURDY])
    assert result.summary.labels == 12
    assert result.summary.labels_failed == result.summary.failures["label: unconverged"] > 0


def label_times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "labels").rglob("*.json")}


SCRIPT = """
import sys
import psiflow_core as psiflow
from ase.build import molecule

learning = psiflow.OnlineLearning(
    potential=psiflow.potential("toy", basis=8, delay=0.2),
    sampler=psiflow.sampler("ase", temperature=900.0),
    reference=psiflow.reference("toy", delay=0.1),
    walkers=3, committee=2, schedule=sys.argv[2],
    bootstrap=psiflow.Bootstrap(structures=4),
    walking=psiflow.Walking(
        segment=psiflow.Segments(steps=10, check_every=5),
        limits=psiflow.Limits(deviation=0.05, lost=500.0, force=1e4),
    ),
    selection=psiflow.selection("uncertain", threshold=0.0),
    budget=psiflow.Budget(labels=14),
)
if __name__ == "__main__":
    with psiflow.Context(psiflow.executor("local", workers=2), folder=sys.argv[3]) as context:
        learning.run(start=molecule("H2O"), folder=sys.argv[1], context=context, progress=False)
"""


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
def test_a_killed_campaign_loses_no_label(schedule: str, tmp_path: Path) -> None:
    script, folder = tmp_path / "campaign.py", tmp_path / "c"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), schedule, str(tmp_path)]
    driver = subprocess.Popen(command)
    wait_until(lambda: len(label_times(folder)) >= 8, driver)
    workers = guard.guarding(tmp_path / "pools" / f"all-{driver.pid}")
    assert workers
    driver.kill()
    driver.wait()
    assert not survivors(workers), "they end by themselves, and may finish what they are at"
    before = label_times(folder)
    subprocess.run(command, check=True)
    after = label_times(folder)
    assert {file: after[file] for file in before} == before
    labelled = [event.what.candidate for event in events(folder) if isinstance(event.what, Labelled)]
    assert len(labelled) == len(set(labelled)) == 14 + 2
    assert len(after) == 14 + 2
    assert read_campaign(folder).state.finished == "labels"
    assert len(read_campaign(folder).state.opened) == 2
