"""The main job, small: MACE learns water from PySCF while its walkers move in OpenMM, in worker processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import molecule
from psiflow_toys.waiting import runs

import psiflow_core as psiflow
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.potentials.metrics import rms
from psiflow_core.structures import digest, label_of


def learning(labels: int) -> psiflow.OnlineLearning:
    return psiflow.OnlineLearning(
        potential=psiflow.potential("mace", num_channels=8, r_max=4.0, max_ell=2),
        sampler=psiflow.sampler("openmm", ensemble="nvt", temperature=600.0),
        reference=psiflow.reference("pyscf", method="hf", basis="sto-3g"),
        walkers=4,
        committee=2,
        budget=psiflow.Budget(labels=labels),
        bootstrap=psiflow.Bootstrap(structures=8),
        training=psiflow.Training(steps=200, warm_steps=100),
        selection=psiflow.selection("uncertain", threshold=0.0),  # every segment has something to label
        walking=psiflow.Walking(segment=psiflow.Segments(steps=100, stride=50)),
    )


def unseen() -> list[Atoms]:
    """Water, displaced further than the bootstrap does."""
    random = np.random.default_rng(7)
    found = [molecule("H2O") for _ in range(6)]
    for atoms in found:
        atoms.positions += random.normal(scale=0.07, size=(3, 3))
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> psiflow.Result:
    folder = tmp_path_factory.mktemp("water") / "campaign"
    return learning(20).run(molecule("H2O"), folder, test=unseen(), progress=False)


def test_the_budget_is_spent_and_walkers_found_most_of_it(result: psiflow.Result) -> None:
    origins = Counter(c.origin for c in result.state.candidates if c.status == "labelled")
    assert origins["bootstrap"] + origins["walker"] == 20
    assert origins["walker"] == 12
    assert origins["test"] == 6


def test_the_final_potential_is_far_better_than_none_on_unseen_structures(result: psiflow.Result) -> None:
    tests = list(result.dataset[[one.extra["subset"] == "test" for one in result.dataset.provenance]])
    forces = rms(np.concatenate([label_of(atoms).forces.ravel() for atoms in tests]))
    assert result.summary.errors["test"].force_rmse < forces / 4


def test_labels_are_hartree_fock_and_not_something_else(result: psiflow.Result) -> None:
    from pyscf import gto, scf

    labelled = result.dataset[0]
    atoms = list(zip(labelled.get_chemical_symbols(), labelled.positions.tolist(), strict=True))
    energy = scf.RHF(gto.M(atom=atoms, basis="sto-3g", verbose=0)).kernel()
    assert label_of(labelled).energy == pytest.approx(energy * 27.211386, abs=1e-4)


def test_no_test_structure_was_learned_from(result: psiflow.Result) -> None:
    tests = {digest(atoms) for atoms in unseen()}
    learned = {result.state.candidates[number].structure for g in result.state.generations for number in g.training}
    assert tests.isdisjoint(learned)


def test_the_calculator_works_in_a_fresh_process(result: psiflow.Result) -> None:
    code = (
        "import sys, psiflow_core as psiflow; from ase.build import molecule\n"
        "water = molecule('H2O'); water.calc = psiflow.TrainedPotential.load(sys.argv[1]).calculator()\n"
        "print(repr(float(water.get_potential_energy())), len(water.calc.results['deviation']))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(result.folder / "potential")], capture_output=True, text=True, check=True
    ).stdout.split()
    here = molecule("H2O")
    here.calc = result.potential.calculator()
    assert float(said[0]) == pytest.approx(here.get_potential_energy(), abs=1e-5)
    assert said[1] == "3"


def test_forces_of_the_committee_are_the_gradient_of_its_energy(result: psiflow.Result) -> None:
    water = molecule("H2O")
    water.rattle(0.05, seed=3)
    water.calc = result.potential.calculator()
    analytic = water.get_forces()[1, 1]
    energies = []
    for step in (1e-2, -1e-2):
        moved = water.copy()
        moved.positions[1, 1] += step
        moved.calc = result.potential.calculator()
        energies.append(moved.get_potential_energy())
    # the network is in float32: an energy of −2000 eV is summed in float64, its interaction part is not
    assert -(energies[0] - energies[1]) / 2e-2 == pytest.approx(analytic, abs=2e-2)


def test_trajectories_are_kept_at_the_stride_that_was_asked_for(result: psiflow.Result) -> None:
    frames = result.trajectories[0].frames
    assert 1 <= len(frames) <= 2
    assert np.isfinite(frames[0].get_forces()).all()


def test_the_report_tells_errors_fates_and_the_workers_time(result: psiflow.Result) -> None:
    page = result.report.read_text()
    rmse = 1e3 * result.summary.errors["test"].force_rmse
    assert f"{rmse:.0f} <small>meV/Å" in page
    assert page.count("<svg") >= 4
    assert "Fate of every candidate" in page


def test_a_finished_campaign_returns_at_once_and_a_larger_budget_goes_on(result: psiflow.Result) -> None:
    before = len(read_campaign(result.folder).events)
    again = learning(20).run(molecule("H2O"), result.folder, test=unseen(), progress=False)
    assert len(read_campaign(again.folder).events) == before
    old = {file: file.stat().st_mtime_ns for file in Path(result.folder, "labels").rglob("*.json")}
    more = learning(23).run(molecule("H2O"), result.folder, test=unseen(), progress=False)
    assert more.state.count("labelled") == 23
    assert all(file.stat().st_mtime_ns == when for file, when in old.items())


def test_no_process_is_left(result: psiflow.Result) -> None:
    children = [child for child in psutil.Process().children(recursive=True) if runs(child)]
    assert not [child for child in children if "psiflow_core.processes.guard" in " ".join(child.cmdline())]


def test_the_native_format_is_read_by_its_own_calculator(result: psiflow.Result, tmp_path: Path) -> None:
    from mace.calculators import MACECalculator

    files = result.potential.export(tmp_path)
    assert len(files) == 2
    water = molecule("H2O")
    native = MACECalculator(model_paths=str(files[0]), device="cpu", default_dtype="float32")
    water.calc = native
    member = psiflow.TrainedPotential(result.potential.members[:1])
    assert water.get_forces() == pytest.approx(member.predict([water])[0].forces, abs=1e-3)
