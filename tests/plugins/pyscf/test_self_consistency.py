"""The fall-back ladder ends in a trustworthy field or in a failure that tells what was tried."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from psiflow_pyscf import _scf
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


@pytest.fixture
def antibonding(monkeypatch) -> None:
    """The ladder's first rung ends in a field of two like atoms whose last electrons are in the antibonding orbital.

    With one basis function on each atom symmetry alone gives the orbitals, and makes the gradient vanish: that is a
    saddle point on every machine, wherever DIIS would have gone.
    """

    def at_the_saddle_point(field, lowest):
        overlap = field.get_ovlp()[0, 1]
        bonding, turned = np.array([1, 1]) / np.sqrt(2 + 2 * overlap), np.array([1, -1]) / np.sqrt(2 - 2 * overlap)
        both, last = np.array([turned, bonding]).T, np.array([2.0, 0.0])
        orbitals, filled = (both, last) if field.mol.spin == 0 else ((both, both), ([1.0, 1.0], [1.0, 0.0]))
        field.mo_coeff, field.mo_occ = np.array(orbitals), np.array(filled)
        field.mo_energy = np.einsum("...ai,...ab,...bi->...i", both, field.get_fock(dm=field.make_rdm1()), both)
        field.e_tot, field.converged = field.energy_tot(), True
        assert np.abs(field.get_grad(field.mo_coeff, field.mo_occ)).max() < 1e-12
        return field

    monkeypatch.setitem(_scf.RUNGS, "DIIS", at_the_saddle_point)


def test_singlets_descend_from_a_saddle_point_when_asked(label, antibonding) -> None:
    """Of the two restricted states of H2 in a minimal basis the lower has -29.7125 eV."""
    hydrogen = Atoms("H2", [[0, 0, 0], [0, 0, 0.9]])
    assert label(hydrogen, **SMALL).energy > -15
    assert label(hydrogen, **SMALL, check_stability=True).energy == pytest.approx(-29.7125, abs=1e-3)


def test_open_shells_descend_from_a_saddle_point(label, antibonding) -> None:
    helium = Atoms("He2", [[0, 0, 0], [0, 0, 1.1]], info={"charge": 1, "spin": 2})
    assert label(helium, **SMALL).energy == pytest.approx(-131.0370, abs=1e-3)


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
