"""A periodic liquid, small: MACE learns water from CP2K while its walkers move in OpenMM at constant pressure."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

import psiflow_core as psiflow
from psiflow_core.potentials.metrics import rms
from psiflow_core.structures import label_of

pytestmark = pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="there is no cp2k.psmp on PATH")

EDGE = 3.9
"""Of the cell of two molecules at 1 g/cm³, less than MACE's cut-off: atoms see their own images. [Å]"""


def water() -> Atoms:
    """Two molecules, in a body-centred arrangement."""
    random = np.random.default_rng(3)
    cell = Atoms(cell=[EDGE] * 3, pbc=True)
    for place in (0.3, 0.3 + EDGE / 2):
        one = molecule("H2O")
        one.positions = place + Rotation.random(random_state=random).apply(one.positions - one.positions[0])
        cell += one
    return cell


def unseen() -> list[Atoms]:
    """Displaced, squeezed and stretched at random."""
    random = np.random.default_rng(7)
    found = [water() for _ in range(4)]
    for atoms in found:
        atoms.set_cell(atoms.cell @ (np.eye(3) + np.diag(random.uniform(-0.03, 0.03, 3))), scale_atoms=True)
        atoms.positions += random.uniform(-0.08, 0.08, (6, 3))
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> psiflow.Result:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environment.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        learning = psiflow.OnlineLearning(
            potential=psiflow.potential("mace", num_channels=8, r_max=4.0, max_ell=2),
            sampler=psiflow.sampler("openmm", ensemble="npt", temperature=300.0, pressure=1.0, barostat_frequency=5),
            reference=psiflow.reference(
                "cp2k",
                basis="SZV-MOLOPT-SR-GTH",
                cutoff=200.0,
                rel_cutoff=30.0,
                eps_scf=1e-4,
                eps_default=1e-10,
                vacuum=2.5,
                max_scf=30,
            ),
            walkers=2,
            committee=2,
            budget=psiflow.Budget(labels=14),
            bootstrap=psiflow.Bootstrap(structures=10),
            selection=psiflow.selection("uncertain", threshold=0.0),  # every segment has something to label
            walking=psiflow.Walking(segment=psiflow.Segments(steps=50, stride=5)),
            training=psiflow.Training(steps=200, warm_steps=100, final_steps=300),
        )
        return learning.run(water(), tmp_path_factory.mktemp("water") / "campaign", test=unseen(), progress=False)


def of(result: psiflow.Result, subset: str) -> list[Atoms]:
    return list(result.dataset[[one.extra["subset"] == subset for one in result.dataset.provenance]])


def test_every_label_came_and_has_a_stress(result: psiflow.Result) -> None:
    assert result.summary.labels == 14
    assert result.summary.labels_failed == 0
    assert len(result.dataset) == 18
    assert all(np.shape(label_of(atoms).stress) == (6,) for atoms in result.dataset)


def test_errors_on_unseen_structures_are_far_below_what_is_learned(result: psiflow.Result) -> None:
    """Against guessing: no forces, the mean energy and the mean stress of what was trained on."""
    labels, known = [label_of(a) for a in of(result, "test")], [label_of(a) for a in of(result, "training")]
    forces = rms(np.concatenate([label.forces.ravel() for label in labels]))
    mean_stress = np.mean([label.stress for label in known], axis=0)
    stresses = rms(np.array([label.stress for label in labels]) - mean_stress)
    energies = rms(np.array([label.energy for label in labels]) - np.mean([label.energy for label in known])) / 6
    found = result.summary.errors["test"]
    assert found.force_rmse < forces / 8
    assert found.stress_rmse is not None
    assert found.stress_rmse < stresses / 2
    assert found.energy_rmse < energies / 2


def test_the_report_tells_the_error_of_the_stress(result: psiflow.Result) -> None:
    assert "stress [MPa]" in str(result)
    assert "stress RMSE" in result.report.read_text()


def test_the_cell_moves_and_the_liquid_stays_one(result: psiflow.Result) -> None:
    volumes = [frame.get_volume() for segment in result.trajectories for frame in segment.frames]
    assert len(set(volumes)) > 5
    assert min(volumes) > 0.7 * EDGE**3
    assert max(volumes) < 1.5 * EDGE**3


def test_stress_of_the_committee_is_the_strain_derivative_of_its_energy(result: psiflow.Result) -> None:
    atoms = water()
    atoms.calc = result.potential.calculator()
    pressure = atoms.get_stress()[:3].mean()
    energies = []
    for strain in (1e-2, -1e-2):
        atoms.set_cell(np.eye(3) * EDGE * (1 + strain), scale_atoms=True)
        energies.append(atoms.get_potential_energy())
    derivative = (energies[0] - energies[1]) / 2e-2 / (3 * EDGE**3)
    assert pressure == pytest.approx(derivative, abs=0.02 * abs(derivative) + 1e-3)
