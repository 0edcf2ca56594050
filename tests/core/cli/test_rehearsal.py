"""`psiflow rehearse`: the whole campaign in small, and what it could and could not show."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ase.build import molecule
from typer.testing import CliRunner

from psiflow_core.cli import app
from psiflow_core.cli.rehearsal import SHORT, prepare, stand_in
from psiflow_core.errors import OptionError
from psiflow_core.learning.driver.request import read_campaign

CAMPAIGN = {
    "potential": {"name": "toy", "cutoff": 5.5},
    "sampler": {"name": "ase", "ensemble": "nve", "temperature": 100.0},
    "reference": {"name": "toy"},
    "walkers": 2,
    "committee": 2,
    "budget": {"labels": 2000},
    "bootstrap": {"structures": 100},
    "walking": {"segment": {"steps": 20}},
    "training": {"final_steps": 10000},
    "start": "water.xyz",
    "test": "test.xyz",
    "folder": "campaign",
    "context": {"everything": {"name": "threads", "workers": 2}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    molecule("H2O").write(tmp_path / "water.xyz")
    for number in range(5):
        molecule("H2O").write(tmp_path / "test.xyz", append=number > 0)
    file = tmp_path / "campaign.yaml"
    file.write_text(yaml.safe_dump(CAMPAIGN))
    return file


def test_a_rehearsal_is_the_campaign_in_small(file: Path, tmp_path: Path) -> None:
    rehearsal = prepare(file, "emt", labels=12)
    small, given = rehearsal.small.learning, rehearsal.given.learning
    assert (small.budget.labels, small.bootstrap.structures, small.training.final_steps) == (12, 6, SHORT)
    assert (small.potential, small.sampler, small.walkers) == (given.potential, given.sampler, given.walkers)
    assert len(rehearsal.test) == 3
    assert rehearsal.folder == tmp_path / "campaign-rehearsal-1"


def test_a_rehearsal_runs_to_its_end_and_says_what_it_left_out(file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["rehearse", str(file), "--calculator", "emt", "--labels", "8", "--quiet"])
    assert result.exit_code == 0, result.output
    tried, _, left_out = result.output.partition("Not tried:")
    assert "✔ campaign: ran to its end" in tried
    for work, words in [("train", "trainings"), ("sample", "segments"), ("label", "labels")]:
        assert f"✔ {work}: " in tried
        assert words in tried
    assert "reference toy: starts on its pool" in left_out
    assert "trainings of 10000 steps, 2000 labels" in left_out
    assert read_campaign(tmp_path / "campaign-rehearsal-1").configuration["reference"]["calculator"] == "emt"
    assert not (tmp_path / "campaign").exists()
    assert prepare(file, "emt").folder == tmp_path / "campaign-rehearsal-2"


def test_what_breaks_is_told_at_the_end(file: Path) -> None:
    given = {**CAMPAIGN, "context": {"everything": "threads", "train": {"name": "toy-blocks", "before": "exit 3"}}}
    file.write_text(yaml.safe_dump(given))
    result = CliRunner().invoke(app, ["rehearse", str(file), "--calculator", "emt", "--quiet"])
    assert result.exit_code == 1
    assert "✘ campaign: " in result.output
    assert "exit code 3" in result.output


def test_a_lennard_jones_potential_has_its_minimum_at_the_shortest_distance() -> None:
    water = molecule("H2O")
    spec = stand_in("lj", [water])
    assert spec.options["parameters"]["sigma"] * 2 ** (1 / 6) == pytest.approx(water.get_distance(0, 1))


def test_a_calculator_that_nobody_knows_is_refused_on_a_worker(file: Path) -> None:
    result = CliRunner().invoke(app, ["rehearse", str(file), "--calculator", "emmt", "--quiet"])
    assert result.exit_code == 1
    assert "no such calculator" in result.output


def test_a_rehearsal_of_a_wrong_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read"):
        prepare(tmp_path / "none.yaml", "emt")
