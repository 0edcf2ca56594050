"""Charge and multiplicity are each structure's own; atoms are labelled like everything else."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.units import Hartree

from psiflow_core.structures import isolated_atom

EXACT = {"H": -0.5, "C": -37.845, "N": -54.589, "O": -75.067, "F": -99.734, "S": -398.110, "Cl": -460.148}
"""Non-relativistic energies, Chakravorty et al., Phys. Rev. A 47, 3649 (1993). [Eh]"""


@pytest.mark.parametrize("options", [{"method": "hf"}, {"method": "mp2"}, {}, {"density_fitting": True}])
@pytest.mark.parametrize("symbol", ["H", "C", "N", "O", "F", "S", "Cl"])
def test_every_method_labels_every_atom(symbol, options, label) -> None:
    atom = label(isolated_atom(symbol), **options, grid_level=1)
    assert atom.forces.tolist() == [[0.0, 0.0, 0.0]]
    assert atom.energy / Hartree == pytest.approx(EXACT[symbol], rel=0.01)


@pytest.mark.parametrize("symbol", ["C", "N", "O"])
def test_atoms_follow_the_first_rule_of_hund(symbol, label) -> None:
    ground = isolated_atom(symbol)
    excited = ground.copy()
    excited.info["spin"] -= 2
    assert label(ground, method="hf").energy < label(excited, method="hf").energy - 0.5


def test_one_electron_has_no_correlation(label) -> None:
    hydrogen = isolated_atom("H")
    assert label(hydrogen, method="mp2").energy == pytest.approx(label(hydrogen, method="hf").energy, abs=1e-9)


def test_a_transition_metal_atom_is_labelled(label) -> None:
    """The Hartree-Fock limit of the quintet is -1262.4437 Eh (Bunge et al., ADNDT 53, 113 (1993))."""
    energy = label(isolated_atom("Fe"), method="hf").energy / Hartree
    assert -1262.45 < energy < -1262.1  # a double-zeta basis lacks 0.2 Eh


def test_oxygen_is_a_triplet(label) -> None:
    triplet, singlet = (Atoms("O2", [[0, 0, 0], [0, 0, 1.21]], info={"spin": spin}) for spin in (3, 1))
    assert label(triplet, method="hf").energy < label(singlet, method="hf").energy - 0.98  # experiment


def test_the_electron_affinity_of_hydroxyl(label) -> None:
    """1.83 eV in experiment; PBE with diffuse functions is known to be within 0.2 eV."""
    radical, anion = (Atoms("OH", [[0, 0, 0], [0, 0, 0.97]]) for _ in range(2))
    radical.info["spin"], anion.info["charge"] = 2, -1
    level = {"basis": "aug-cc-pvdz", "density_fitting": True, "grid_level": 1}
    affinity = label(radical, **level).energy - label(anion, **level).energy
    assert affinity == pytest.approx(1.83, abs=0.3)
