"""Energies against values that others have published."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree, kcal, mol

from psiflow_core.structures import isolated_atom


@pytest.mark.parametrize(
    ("symbol", "published", "basis_set_error"),
    [("H", -0.478671, 1e-4), ("He", -2.834836, 3e-4), ("Ne", -128.233481, 6e-3)],
)
def test_local_density_atoms(symbol, published, basis_set_error, label) -> None:
    """LSD with VWN correlation, Kotochigova et al., Phys. Rev. A 55, 191 (1997), NIST Standard Reference 141.

    They are basis-set limits on radial grids: ours must be above by no more than cc-pVQZ lacks.
    """
    energy = label(isolated_atom(symbol), functional="lda,vwn", basis="aug-cc-pvqz").energy / Hartree
    assert -1e-5 < energy - published < basis_set_error


def test_pbe_atomization_energies(label) -> None:
    """Perdew, Burke and Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996), table I: H2 105, H2O 234 kcal/mol."""
    level = {"basis": "def2-tzvpp", "density_fitting": True}
    hydrogen, oxygen = (label(isolated_atom(symbol), **level).energy for symbol in "HO")
    h2 = 2 * hydrogen - label(molecule("H2"), **level).energy
    h2o = 2 * hydrogen + oxygen - label(molecule("H2O"), **level).energy
    assert h2 / (kcal / mol) == pytest.approx(105, abs=1)
    assert h2o / (kcal / mol) == pytest.approx(234, abs=2)


@pytest.mark.parametrize(
    ("dispersion", "energy", "gradient"),
    [("d3bj", -0.002682864283734, 0.0004553384490128), ("d4", -0.000967454204722, 9.31972590827e-06)],
)
def test_dispersion_of_hydrogen(dispersion, energy, gradient, label) -> None:
    """H2 at 1 Å with the parameters of Hartree-Fock, from the tests of pyscf-dispersion."""
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 1.0]])
    bare, corrected = label(atoms, method="hf"), label(atoms, method="hf", dispersion=dispersion)
    assert (corrected.energy - bare.energy) / Hartree == pytest.approx(energy, abs=1e-9)
    assert -(corrected.forces - bare.forces)[0, 2] * Bohr / Hartree == pytest.approx(gradient, abs=1e-8)


def test_mp2_of_water(label) -> None:
    """The structure and energies of Crawford's programming projects 3 and 4 (STO-3G, all electrons)."""
    positions = [
        (0.0, -0.143225816552, 0.0),
        (1.638036840407, 1.136548822547, 0.0),
        (-1.638036840407, 1.136548822547, 0.0),
    ]
    water = Atoms("OH2", np.array(positions) * Bohr)
    scf = label(water, method="hf", basis="sto-3g").energy / Hartree
    mp2 = label(water, method="mp2", basis="sto-3g", frozen_core=False).energy / Hartree
    assert scf == pytest.approx(-74.942079928192, abs=1e-7)
    assert mp2 - scf == pytest.approx(-0.049149636120, abs=1e-7)
