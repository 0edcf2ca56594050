"""Biases in campaigns: umbrella sampling, incremental learning, metadynamics, and what is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from psiflow_toys import campaigns
from psiflow_toys.events import failed, happening, moved, trained

import psiflow_core as psiflow
from psiflow_core.cli.request import read_request
from psiflow_core.components import LabelTask, Place
from psiflow_core.errors import OptionError, PluginNotFound
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.sample import read_walker
from psiflow_core.labels.store import read_label
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import Event, Started, TaskEnded
from psiflow_core.learning.machine.fold import apply, fold
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.online import Result
from psiflow_core.potentials.trained import Member, ModelFile, TrainedPotential
from psiflow_core.registry.plugins import build
from psiflow_core.sampling.schemes import biases_at
from psiflow_core.structures import Plain, from_plain, label_of

BOND = psiflow.Distance(atoms=(0, 1))

UMBRELLA = psiflow.Umbrella(variable=BOND, start=0.9, stop=1.3, stiffness=30.0)
INCREMENTAL = psiflow.Incremental(variable=BOND, start=1.0, stop=1.3, steps=3, stiffness=30.0)
HILLS = psiflow.Metadynamics(variables=(BOND,), sigma=0.05, height=0.02, every=5)
WALL = psiflow.UpperWall(variable=BOND, edge=1.3, stiffness=30.0)


def centers(scheme: Any, places: list[Place]) -> list[float]:
    return [biases_at(place, [scheme])[0].stop for place in places]  # type: ignore[attr-defined]


def test_umbrella_sampling_spreads_walkers_evenly() -> None:
    found = centers(UMBRELLA, [Place(n, 5, stage=0, step=70, steps=10) for n in range(5)])
    assert found == pytest.approx([0.9, 1.0, 1.1, 1.2, 1.3])
    assert centers(UMBRELLA, [Place(0, 1, 0, 0, 10)]) == [0.9]


def test_incremental_learning_has_a_centre_for_every_stage() -> None:
    found = centers(INCREMENTAL, [Place(0, 1, stage, step=0, steps=10) for stage in range(4)])
    assert found == pytest.approx([1.0, 1.1, 1.2, 1.3])


def test_a_walker_is_pulled_in_the_first_half_of_its_segment_from_where_it_is() -> None:
    (bias,) = biases_at(Place(0, 1, stage=2, step=70, steps=20), [INCREMENTAL])
    assert isinstance(bias, psiflow.MovingHarmonic)
    assert (bias.start, bias.after, bias.steps) == (None, 70, 10)


# The state machine -----------------------------------------------------------------------------------------


class Travelled:
    """A campaign with a model, one walker and a path, told event by event."""

    def __init__(self, **settings: Any) -> None:
        walking = psiflow.Walking(bias=INCREMENTAL, segment=psiflow.Segments(steps=10))
        given = {"budget": psiflow.Budget(labels=50), "walkers": 1, "committee": 2, "walking": walking}
        self.settings = Settings(**{**given, **settings})
        self.state, self.events = State(), list[Event]()
        self.tell("opened")
        self.tell("adopted", members=[trained("m")] * 2)

    def tell(self, kind: str, /, **data: Any) -> None:
        self.events.append(Event(len(self.events) + 1, 1e9 + len(self.events), happening(kind, **data)))
        apply(self.state, self.events[-1], self.settings)
        assert fold(self.events, self.settings) == self.state

    def segment(self, stopped: str | None = None, **told: Any) -> tuple[int, int]:
        """Stage and steps of the walker after one more segment."""
        return self.told(moved(0, stopped=stopped, **told))

    def told(self, walker: Plain) -> tuple[int, int]:
        """The same after a segment that ended this way."""
        name = f"sample-{len(self.events)}"
        about = {"kind": "sample", "walkers": [0], "generation": 0, "progress": 0}
        self.tell("started", task={"id": name, "about": about})
        self.tell("sampled", task=name, walkers=[walker])
        state = self.state.walkers[0]
        return state.stage, state.since


def met(deviation: float) -> Plain:
    return {"structure": "s", "deviation": deviation, "step": 5}


def test_each_segment_that_ends_well_goes_a_stage_further_and_from_the_end_back_to_the_start() -> None:
    path = Travelled()
    assert [path.segment() for _ in range(5)] == [(1, 10), (2, 20), (3, 30), (0, 0), (1, 10)]
    walker = path.state.walkers[0]
    assert dict(walker.resets) == {"arrived": 1}
    assert walker.steps == 50


def test_a_walker_that_is_reset_keeps_its_stage() -> None:
    path = Travelled()
    path.segment()
    path.segment()
    assert path.segment(stopped="too hot") == (2, 0)
    assert path.state.walkers[0].file is None
    assert path.told({"walker": 0, "failed": failed("WalkerExploded", "error", "not finite")}) == (2, 0)
    assert path.segment() == (3, 10)


def test_a_walker_that_stops_at_a_candidate_keeps_its_stage_and_its_way() -> None:
    path = Travelled()
    path.segment()
    assert path.segment(stopped="uncertain", candidate=met(0.6)) == (1, 20)
    assert path.state.walkers[0].waiting_for == 0
    path = Travelled()
    assert path.segment(candidate=met(0.2)) == (1, 10), "one that met something and went on has ended well"


def test_an_optimisation_that_has_converged_goes_on_to_the_next_stage() -> None:
    path = Travelled()
    path.segment(finished=True)
    assert path.state.walkers[0].settled is None


def test_a_campaign_with_a_path_has_not_converged_before_its_end() -> None:
    walking = psiflow.Walking(bias=psiflow.Incremental(variable=BOND, start=1, stop=2, steps=20, stiffness=1))
    assert Settings(budget=psiflow.Budget(labels=5), walking=walking).patience == 21
    assert Settings(budget=psiflow.Budget(labels=5)).patience == 5


def test_a_walker_goes_along_one_path() -> None:
    with pytest.raises(OptionError, match="'incremental' twice; a walker can go along one path"):
        Settings(budget=psiflow.Budget(labels=5), walking=psiflow.Walking(bias=(INCREMENTAL, INCREMENTAL)))


# Whole campaigns -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with Context(psiflow.executor("threads"), folder=tmp_path_factory.mktemp("pools")) as context:
        yield context


def biased(bias: Any, **settings: Any) -> psiflow.OnlineLearning:
    walking = psiflow.Walking(
        segment=psiflow.Segments(steps=40, check_every=5),
        limits=psiflow.Limits(deviation=10.0, lost=500.0, force=1e4, distance=0.3),
        errors=psiflow.ErrorThresholds(reset_force=None, discard_force=None),
        bias=bias,
    )
    sampler = psiflow.sampler("ase", temperature=300.0, friction=100.0)
    given = {"walking": walking, "sampler": sampler, "schedule": "sequential", "labels": 16}
    return campaigns.learning(**{**given, **settings})


def walker_files(result: Result) -> dict[int, Plain]:
    """By walker; none of those that start over."""
    walkers = [walker for walker in result.state.walkers if walker.file]
    return {walker.id: json.loads((result.folder / str(walker.file)).read_text()) for walker in walkers}


def lengths(result: Result) -> list[float]:
    return [from_plain(plain["structure"]).get_distance(0, 1) for plain in walker_files(result).values()]


def test_walkers_under_an_umbrella_sit_at_their_centres(threads: Context, tmp_path: Path) -> None:
    result = campaigns.run(tmp_path / "c", threads, biased(UMBRELLA, labels=22))
    assert result.state.finished == "labels"
    found = lengths(result)
    assert len(found) == 3
    assert found == sorted(found)
    assert found[2] - found[0] > 0.2, "without an umbrella all sit at the bond's own length"


def story(folder: Path) -> list[tuple[str, Plain]]:
    """What happened, sessions, seconds, workers and the folders of attempts apart."""
    told = [(event.kind, event.what.to_plain()) for event in read_campaign(folder).events if event.kind != "opened"]
    return [(kind, _timeless(data)) for kind, data in told]


def _timeless(data: Any) -> Any:
    if isinstance(data, dict):
        apart = ("seconds", "worker", "file", "cached")
        return {key: _timeless(value) for key, value in data.items() if key not in apart}
    return [_timeless(value) for value in data] if isinstance(data, list) else data


def cut(whole: Result, folder: Path, events: int) -> None:
    """A copy as a killed driver leaves it: nothing is there of what was started after its last event."""
    shutil.copytree(whole.folder, folder)
    later = [event for event in read_campaign(folder).events if event.number > events]
    started = {event.what.task.id for event in later if isinstance(event.what, Started)}
    for task in started | {event.what.task for event in later if isinstance(event.what, TaskEnded)}:
        for left in (folder / "tasks").glob(f"{task}-*/"):
            shutil.rmtree(left)
    journal = sqlite3.connect(folder / "journal.sqlite")
    journal.execute("DELETE FROM events WHERE number > ?", (events,))
    journal.commit()
    journal.close()


@pytest.mark.parametrize(
    "bias", [(INCREMENTAL, WALL), (HILLS, UMBRELLA), (psiflow.AseCalculator(calculator="lj", weight=1e-3), HILLS)]
)
def test_a_killed_campaign_goes_on_under_the_same_biases(bias: Any, threads: Context, tmp_path: Path) -> None:
    goes_on_after_a_kill(bias, threads, tmp_path)


def test_a_killed_campaign_goes_on_with_the_hills_of_plumed(toy_plumed: None, threads: Context, tmp_path: Path) -> None:
    hills = "d: DISTANCE ATOMS=1,2\nMETAD ARG=d SIGMA=0.005 HEIGHT=0.1 PACE=5 BIASFACTOR=10"
    goes_on_after_a_kill((psiflow.Plumed(input=hills), UMBRELLA), threads, tmp_path)


def goes_on_after_a_kill(bias: Any, threads: Context, tmp_path: Path) -> None:
    """It is the same campaign, wherever it was cut."""
    asked = biased(bias)
    whole = campaigns.run(tmp_path / "whole", threads, asked)
    assert whole.state.finished == "labels"
    told = story(whole.folder)
    sampled = [event.number for event in read_campaign(whole.folder).events if event.kind == "sampled"]
    for number, events in enumerate((sampled[len(sampled) // 2], sampled[-1])):
        folder = tmp_path / f"cut {number}"
        cut(whole, folder, events)
        again = campaigns.run(folder, threads, asked)
        assert story(folder) == told, "walkers' files by their hashes, hills and all"
        assert lengths(again) == lengths(whole)


def test_hills_are_kept_with_the_walker_and_end_with_it(threads: Context, tmp_path: Path) -> None:
    result = campaigns.run(tmp_path / "c", threads, biased(HILLS))
    found = walker_files(result)
    assert found
    for number, plain in found.items():
        (memory,), walker = plain["bias"], result.state.walkers[number]
        assert len(memory["hills"]) == walker.since // 5
        assert memory["step"] == walker.since == plain["step"]
        told = ModelFile(result.folder / (walker.file or ""), walker.digest or "")
        assert read_walker(told).step == walker.since


def test_a_path_is_travelled(threads: Context, tmp_path: Path) -> None:
    result = campaigns.run(tmp_path / "c", threads, biased(INCREMENTAL, labels=24))
    assert result.state.finished == "labels"
    assert any(walker.resets["arrived"] for walker in result.state.walkers)
    seen = [structure.get_distance(0, 1) for structure in result.dataset if len(structure) == 3]
    assert max(seen) > 1.25, "the toy's bond is 0.97 Å long"


def test_candidates_and_labels_are_not_biased(threads: Context, tmp_path: Path) -> None:
    """A candidate comes with what the committee that met it says of it, and its label with what the reference says."""
    spring = psiflow.Harmonic(variable=BOND, center=1.1, stiffness=30.0)
    result = campaigns.run(tmp_path / "c", threads, biased(spring))
    met = [candidate for candidate in result.state.of("walker") if candidate.file]
    assert met
    for candidate in met:
        file = result.folder / "structures" / candidate.structure[:2] / f"{candidate.structure}.json"
        record = json.loads(file.read_text())
        structure = from_plain(record["structure"])
        models = result.state.generations[candidate.generation or 0].models
        members = [
            Member(result.potential.members[0].potential, ModelFile(result.folder / one.path, one.digest))
            for one in models
        ]
        (expected,) = TrainedPotential(members).predict([structure])
        assert np.array(record["prediction"]["forces"]) == pytest.approx(expected.forces)
        label = build(psiflow.reference("toy")).label(structure, LabelTask(tmp_path))  # type: ignore[attr-defined]
        assert label_of(read_label(result.folder / str(candidate.file))[0]).energy == pytest.approx(label.energy)


# A file, and what is refused -------------------------------------------------------------------------------

YAML = """
potential: toy
sampler: {name: ase, temperature: 300}
reference: toy
budget: {labels: 8}
start: water.xyz
folder: c
walking:
  bias:
    - {name: umbrella, variable: {name: angle, atoms: [1, 0, 2]}, start: 1.5, stop: 2.2, stiffness: 5}
    - {name: upper-wall, variable: {name: distance, atoms: [0, 1]}, edge: 1.5, stiffness: 20}
    - name: metadynamics
      variables: [{name: distance, atoms: [0, 1]}, {name: distance, atoms: [0, 2]}]
      sigma: [0.05, 0.05]
      height: 0.01
"""


def test_a_file_may_ask_for_biases(tmp_path: Path) -> None:
    (tmp_path / "campaign.yaml").write_text(YAML)
    walking = read_request(tmp_path / "campaign.yaml").learning.walking
    assert [bias.name for bias in walking.bias] == ["umbrella", "upper-wall", "metadynamics"]
    assert psiflow.Walking(**json.loads(walking.model_dump_json())) == walking


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        ("harmonic", "bias 'harmonic': option 'variable' is missing"),
        (3, r"write a bias as \{name: …\} with options, not 3"),
        ({"name": "umbrela"}, "no bias 'umbrela'. Did you mean 'umbrella'"),
        (
            {"name": "umbrella", "variable": {"name": "volume"}, "start": 1, "stop": 2, "stiffness": 0},
            "stiffness=0",
        ),
        (
            {"name": "metadynamics", "variables": [{"name": "volume"}], "sigma": [1, 2], "height": 1},
            "2 widths in sigma for 1 variables",
        ),
    ],
)
def test_a_bias_that_is_written_wrongly_is_told(bias: Any, says: str) -> None:
    with pytest.raises((OptionError, PluginNotFound), match=says):
        psiflow.Walking(bias=[bias])


def refused(bias: Any, says: str, context: Context, folder: Path, start: Atoms, **settings: Any) -> None:
    with pytest.raises(OptionError, match=says):
        campaigns.run(folder, context, biased(bias, **settings), start=[start])
    assert not list(folder.rglob("label-*")), "nothing ran"


def test_what_does_not_fit_the_structures_is_refused_before_workers_start(tmp_path: Path) -> None:
    idle = Context(folder=tmp_path / "pools")
    water, far = molecule("H2O"), psiflow.Distance(atoms=(0, 3))
    refused(psiflow.Harmonic(variable=far, center=1, stiffness=1), "no atom 3 in H2O", idle, tmp_path / "a", water)
    refused(
        psiflow.Incremental(variable=psiflow.Volume(), start=1, stop=2, steps=2, stiffness=1),
        "H2O is not periodic in all directions, so it has no volume",
        idle,
        tmp_path / "b",
        water,
    )
    assert not (tmp_path / "pools").exists()


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        (
            psiflow.Umbrella(variable=psiflow.Function(function="not_there:cv"), start=0, stop=1, stiffness=1),
            "'not_there:cv' cannot be imported on the worker",
        ),
        (psiflow.AseCalculator(calculator="ljj"), "no such calculator. Did you mean 'lj'"),
    ],
)
def test_what_a_worker_cannot_do_is_refused_before_anything_runs(
    bias: Any, says: str, threads: Context, tmp_path: Path
) -> None:
    refused(bias, says, threads, tmp_path / "c", molecule("H2O"))


def test_hills_that_become_lower_need_a_temperature(threads: Context, tmp_path: Path) -> None:
    nve = psiflow.sampler("ase", ensemble="nve")
    says = "bias_factor needs a sampler with a temperature"
    refused(HILLS, says, threads, tmp_path / "c", molecule("H2O"), sampler=nve)
