"""The fall-back ladder ends in a trustworthy field or in a failure that tells what was tried."""

from __future__ import annotations

import pytest
from ase import Atoms
from psiflow_pyscf.reference import PySCF

from psiflow_core.components import LabelTask
from psiflow_core.errors import ReferenceFailed
from psiflow_core.structures import isolated_atom

SMALL = {"method": "hf", "basis": "sto-3g"}


@pytest.fixture
def nitric_oxide() -> Atoms:
    """In this basis DIIS goes on for 200 cycles without an end."""
    return Atoms("NO", [[0, 0, 0], [0, 0, 1.15]], info={"spin": 2})


def test_a_higher_rung_finds_what_diis_misses(nitric_oxide, tmp_path) -> None:
    reached = []
    for cycles in (6, 60):
        folder = tmp_path / str(cycles)
        folder.mkdir()
        reached.append(PySCF(**SMALL, max_cycle=cycles).label(nitric_oxide, LabelTask(folder)))
        assert "SCF not converged" in (folder / "pyscf.log").read_text()
    assert reached[0].energy == pytest.approx(reached[1].energy, abs=1e-6)
    assert reached[0].forces == pytest.approx(reached[1].forces, abs=1e-3)


def test_a_hopeless_field_is_a_failure_that_names_every_rung(nitric_oxide, tmp_path) -> None:
    with pytest.raises(ReferenceFailed) as failure:
        PySCF(**SMALL, max_cycle=1).label(nitric_oxide, LabelTask(tmp_path))
    assert failure.value.reason == "unconverged"
    for rung in ("DIIS (1 cycles", "DIIS from atomic densities", "damping and level shift", "second order"):
        assert rung in str(failure.value)
    assert "cycle= 1" in (tmp_path / "pyscf.log").read_text()


def test_open_shells_descend_from_a_saddle_point(label) -> None:
    """DIIS converges B2 on one at -1315.61 eV, for which the Hessian has a negative eigenvalue."""
    b2 = Atoms("B2", [[0, 0, 0], [0, 0, 1.6]], info={"spin": 3})
    assert label(b2, **SMALL).energy < -1317.5


def test_singlets_descend_from_a_saddle_point_when_asked(label) -> None:
    square = Atoms("Li4", [[0, 0, 0], [0, 0, 3], [0, 3, 0], [0, 3, 3]])
    assert label(square, **SMALL, check_stability=True).energy < label(square, **SMALL).energy - 0.1


@pytest.mark.parametrize("method", ["hf", "mp2"])
@pytest.mark.parametrize("symbols", ["He", "He2", "Be", "H"])
def test_full_shells_and_vanishing_gradients_are_no_obstacle(symbols, method, label) -> None:
    """He has no virtual orbital in this basis, and symmetry makes Be's orbital gradient exactly zero."""
    atoms = Atoms(symbols, positions=[(0, 0, 2 * i) for i in range(len(Atoms(symbols)))])
    atoms.info["spin"] = 2 if symbols == "H" else 1
    assert label(atoms, method=method, basis="sto-3g", check_stability=True).energy < -12


def test_a_label_does_not_depend_on_what_was_labelled_before(nitric_oxide, label) -> None:
    first = label(nitric_oxide, **SMALL)
    label(isolated_atom("O"), **SMALL)
    label(Atoms("NO", [[0, 0, 0], [0, 0, 1.2]], info={"spin": 4}), **SMALL)
    again = label(nitric_oxide, **SMALL)
    assert again.energy == pytest.approx(first.energy, abs=1e-8)
    assert again.forces == pytest.approx(first.forces, abs=1e-6)


def test_nothing_but_the_log_is_left_behind(label, tmp_path, capfd) -> None:
    label(Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"spin": 2}), density_fitting=True)
    assert [path.name for path in tmp_path.glob("*/*")] == ["pyscf.log"]
    assert capfd.readouterr() == ("", "")
