"""Methods other than density-functional theory: electrostatics have the periods of the structure."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import molecule
from psiflow_cp2k.reference import CP2K

from psiflow_core.structures import isolated_atom
from psiflow_core.testing.physics import random_direction, slope_along


def level(method: str, more: str = "", dft: str = "") -> str:
    return f"&FORCE_EVAL\n&DFT\n{dft}\n&QS\nMETHOD {method}\n{more}\n&END\n&END\n&END"


EWALD = level("xTB", "&xTB\nDO_EWALD T\n&END")


def test_a_free_atom_of_a_crystals_tight_binding_has_no_ewald_sum(label) -> None:
    """Ewald sums are for the crystal; with the Poisson solver of a box CP2K crashes."""
    for given in (EWALD, level("xTB", "&XTB\nDO_EWALD\n&END"), level("xTB")):
        assert label(isolated_atom("H"), force_eval=given).energy == pytest.approx(-10.9235, abs=1e-4)


def test_given_solvers_do_not_matter_to_a_free_atom(label) -> None:
    solver = "&POISSON\nPERIODIC NONE\nPOISSON_SOLVER WAVELET\n&END"
    given = level("xTB", "&XTB\nDO_EWALD T\n&END", solver)
    assert label(isolated_atom("H"), force_eval=given).energy == pytest.approx(-10.9235, abs=1e-4)


def test_tight_binding_of_a_crystal_is_summed_by_ewald(label) -> None:
    """A dipole in a box feels its images, also where the section says nothing of it."""
    water = molecule("H2O")
    box = Atoms(water.symbols, water.positions, cell=[4.5, 4.7, 5.0], pbc=True)
    said, unsaid = label(box, force_eval=EWALD), label(box, force_eval=level("xTB"))
    assert unsaid.energy == pytest.approx(said.energy, abs=1e-6)
    assert abs(said.energy - label(water, force_eval=EWALD).energy) > 1e-3
    direction = random_direction(box, 0)
    slope = slope_along(lambda atoms: label(atoms, force_eval=EWALD).energy, box, direction, 0.005)
    assert -(said.forces * direction).sum() == pytest.approx(slope, abs=2e-3)


def test_semi_empirical_free_atoms_have_no_ewald_sum(label) -> None:
    given = level("PM6", "&SE\nPERIODIC EWALD\n&END", "&POISSON\n&EWALD\nGMAX 21\n&END\n&END")
    plain = label(isolated_atom("O"), force_eval=level("PM6"))
    assert label(isolated_atom("O"), force_eval=given).energy == pytest.approx(plain.energy, abs=1e-6)


def test_check_passes_what_has_labels() -> None:
    CP2K.parse({"force_eval": EWALD}).check([molecule("H2O")])
