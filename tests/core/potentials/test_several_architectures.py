"""A committee of several architectures: whose member is which, who moves walkers, and what is told of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from psiflow_toys.campaigns import learning, moved_water, run

import psiflow_core as psiflow
from psiflow_core.cli.request import read_request
from psiflow_core.errors import CampaignError, OptionError
from psiflow_core.execution.context import Context
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import Sampled
from psiflow_core.online import Result

STIFF, SOFT = psiflow.potential("toy", basis=8), psiflow.potential("toy", basis=5)


@pytest.fixture(scope="module")
def finished(workers: Context, tmp_path_factory: pytest.TempPathFactory) -> Result:
    asked = learning(potential=[STIFF, SOFT], committee=3)
    return run(tmp_path_factory.mktemp("several") / "c", workers, asked, test=moved_water(3, 2))


def test_members_are_of_the_potentials_in_turn(finished: Result) -> None:
    assert [member.potential for member in finished.potential.members] == [STIFF, SOFT, STIFF]
    for generation in finished.state.generations:
        assert generation.complete
        assert len(generation.models) == 3


def test_a_child_is_of_its_parents_potential(finished: Result) -> None:
    """A toy child keeps its parent's Gaussians: as many as its own potential has."""
    assert len(finished.state.generations) > 1
    for generation in finished.state.generations:
        files = [json.loads((finished.folder / model.path).read_text()) for model in generation.models]
        assert [len(weights["centres"]) for weights in files] == [8, 5, 8]


def test_errors_are_told_of_all_and_of_each(finished: Result) -> None:
    summary = finished.summary
    assert set(summary.errors_by_potential) == {"toy (1)", "toy (2)"}
    test = list(finished.dataset[[one.extra["subset"] == "test" for one in finished.dataset.provenance]])
    members = finished.potential.members
    for name, own in {"toy (1)": members[::2], "toy (2)": members[1::2]}.items():
        answers = psiflow.TrainedPotential(own).predict(test)
        differences = [answer.forces - label.get_forces() for answer, label in zip(answers, test, strict=True)]
        rmse = float(np.sqrt(np.mean(np.concatenate(differences) ** 2)))
        assert summary.errors_by_potential[name]["test"].force_rmse == pytest.approx(
            rmse, rel=1e-4
        )  # the data set is rounded
    report = finished.report.read_text()
    assert "toy (1) alone" in report
    assert "toy, toy" in report


def test_the_saved_committee_is_the_same_elsewhere(finished: Result, tmp_path: Path) -> None:
    again = psiflow.TrainedPotential.load(finished.potential.save(tmp_path / "saved"))
    water = moved_water(1, 5)
    assert again.predict(water)[0].energy == finished.potential.predict(water)[0].energy
    assert [member.potential for member in again.members] == [STIFF, SOFT, STIFF]
    with pytest.raises(LookupError, match="no member is of potential 'mace'; its potentials are: toy"):
        again.only("mace")


def test_it_goes_on_from_its_own_committee_and_from_no_other(
    finished: Result, workers: Context, tmp_path: Path
) -> None:
    asked = learning(potential=[STIFF, SOFT], committee=3, labels=6)
    result = run(tmp_path / "c", workers, asked, model=finished.potential)
    assert [member.potential for member in result.potential.members] == [STIFF, SOFT, STIFF]
    with pytest.raises(CampaignError, match="potential was"):
        run(finished.folder, workers, learning(potential=[SOFT, STIFF], committee=3), test=moved_water(3, 2))


def test_what_cannot_be_a_committee_is_refused(workers: Context, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="committee=1 for 2 potentials: each needs at least one member"):
        run(tmp_path / "c", workers, learning(potential=[STIFF, SOFT], committee=1))
    with pytest.raises(OptionError, match="give at least one potential"):
        learning(potential=[])
    assert learning(potential=[STIFF]).potential == STIFF


def test_several_potentials_are_written_in_yaml_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "campaign.yaml").write_text(
        "potential: [toy, {name: toy, basis: 5}]\nsampler: {name: ase, temperature: 300}\nreference: toy\n"
        "budget: {labels: 4}\nstart: water.xyz\nfolder: c\n"
    )
    request = read_request(tmp_path / "campaign.yaml")
    assert [spec.options["basis"] for spec in request.learning.potentials] == [
        psiflow.potential("toy").options["basis"],
        5,
    ]


def test_the_journal_tells_which_potential_moved_each_walker(finished: Result) -> None:
    events = [event.what for event in read_campaign(finished.folder).events]
    turns: dict[int, list[str]] = {}
    for sampled in (what for what in events if isinstance(what, Sampled)):
        turns.setdefault(sampled.walkers[0].walker, []).append(sampled.potential)
    assert {name for moved in turns.values() for name in moved} == {"toy (1)", "toy (2)"}, "they take turns"
