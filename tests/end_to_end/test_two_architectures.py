"""One campaign, two architectures: MACE in this environment, NequIP in one of its own, in one committee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

import psiflow_core as psiflow
from psiflow_core.environments.catalogue import entries
from psiflow_core.errors import OptionError
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import Sampled
from psiflow_core.potentials.predictors import force_spread
from psiflow_core.registry.plugins import registry

pytestmark = pytest.mark.skipif(
    not any(entry.registered.component.name == "nequip" for entry in entries()),
    reason="no environment has psiflow-nequip: make .venv/.nequip",
)


def learning(labels: int = 16) -> psiflow.OnlineLearning:
    return psiflow.OnlineLearning(
        potential=[
            psiflow.potential("mace", num_channels=8, r_max=4.0, max_ell=2),
            psiflow.potential("nequip", num_features=8, r_max=4.0),
        ],
        sampler=psiflow.sampler("openmm", ensemble="nvt", temperature=600.0),
        reference=psiflow.reference("ase", calculator="tblite"),
        walkers=4,
        committee=4,
        budget=psiflow.Budget(labels=labels),
        bootstrap=psiflow.Bootstrap(structures=8),
        training=psiflow.Training(steps=150, warm_steps=80, final_steps=150),
        selection=psiflow.selection("uncertain", threshold=0.0),  # every segment has something to label
        walking=psiflow.Walking(segment=psiflow.Segments(steps=40, stride=20)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("water") / "campaign"


@pytest.fixture(scope="module")
def result(folder: Path) -> psiflow.Result:
    random = np.random.default_rng(7)
    unseen = [molecule("H2O") for _ in range(6)]
    for atoms in unseen:
        atoms.positions += random.normal(scale=0.05, size=(3, 3))
    return learning().run(molecule("H2O"), folder, test=unseen, progress=False)


def test_the_driver_has_no_nequip_and_checks_its_options_all_the_same() -> None:
    assert not registry().has("potential", "nequip")
    with pytest.raises(
        OptionError, match=r"potential 'nequip': unknown option 'num_feature'.*Did you mean 'num_features'"
    ):
        psiflow.potential("nequip", num_feature=8)
    with pytest.raises(OptionError, match=r"r_max=-1\.0: Input should be greater than 0"):
        psiflow.potential("nequip", r_max=-1.0)


def test_members_are_of_each_architecture_in_turn(result: psiflow.Result) -> None:
    assert [member.potential.name for member in result.potential.members] == ["mace", "nequip", "mace", "nequip"]
    assert result.state.count("labelled") == 16
    assert not result.state.failures


def test_each_architecture_ran_where_its_plugin_is(result: psiflow.Result, folder: Path) -> None:
    campaign = read_campaign(folder)
    homes = campaign.opened.homes
    where = {name: home.environment for home in homes for name in home.components if name.startswith("potential")}
    assert where == {"potential mace": "", "potential nequip": "nequip"}
    report = result.report.read_text()
    assert "<h2>Environments</h2>" in report
    assert "nequip alone" in report


def test_both_architectures_move_walkers(result: psiflow.Result, folder: Path) -> None:
    events = [event.what for event in read_campaign(folder).events]
    sampled = [what for what in events if isinstance(what, Sampled)]
    workers = {name: {one.worker for one in sampled if one.potential == name} for name in ("mace", "nequip")}
    assert all(workers.values())
    assert not workers["mace"] & workers["nequip"]


def test_the_committee_is_the_mean_over_all_and_its_spread_that_of_all(result: psiflow.Result) -> None:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=3)
    every = [psiflow.TrainedPotential([member]).predict([atoms])[0] for member in result.potential.members]
    whole = result.potential.predict([atoms])[0]
    np.testing.assert_allclose(whole.forces, np.mean([one.forces for one in every], axis=0), atol=1e-6)
    np.testing.assert_allclose(whole.deviation, force_spread(np.stack([one.forces for one in every])), atol=1e-6)
    spreads: dict[str, Any] = {
        name: result.potential.only(name).predict([atoms])[0].deviation for name in ("mace", "nequip")
    }
    assert all(spread.max() > 0 for spread in spreads.values())


def test_a_potential_of_another_environment_is_an_ase_calculator_here(result: psiflow.Result, tmp_path: Path) -> None:
    """Its forces are the gradient of its energy, and its own format comes out of its own environment."""
    nequip = psiflow.TrainedPotential([result.potential.only("nequip").members[0]])
    atoms = molecule("H2O")
    atoms.calc = nequip.calculator()
    forces, step = atoms.get_forces(), 1e-2
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[1, axis] += sign * step
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        assert forces[1, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=0.05)
    (exported,) = nequip.export(tmp_path)
    assert exported.name == "nequip-0.nequip.zip"
    assert exported.stat().st_size > 0


def test_both_are_compared_on_the_unseen_structures(result: psiflow.Result) -> None:
    by_potential = result.summary.errors_by_potential
    assert set(by_potential) == {"mace", "nequip"}
    forces = result.dataset[[one.extra["subset"] == "test" for one in result.dataset.provenance]].forces
    nothing = float(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    for name, errors in by_potential.items():
        assert errors["test"].force_rmse < 0.5 * nothing, name
    assert "nequip alone" in str(result)
