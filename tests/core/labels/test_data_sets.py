"""Files in the styles of published data sets: read as they were meant, or refused with the way out."""

import gzip
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

import psiflow_core as psiflow
from psiflow_core.checks import check
from psiflow_core.electrons import charge_of
from psiflow_core.environments import catalogue
from psiflow_core.errors import StructureError
from psiflow_core.labels.extxyz import import_labels
from psiflow_core.labels.foreign import labelled
from psiflow_core.labels.reading import read
from psiflow_core.structures import label_of

FRAME = "2\n\nH 0 0 0\nH 0 0 0.74\n"
PDB = (
    "HETATM    1  O   HOH A   1       5.000   5.000   5.000  1.00  0.00           O1-\n"
    "HETATM    2  H   HOH A   1       5.000   5.000   5.970  1.00  0.00           H\nEND\n"
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("charge_state", 1),
        ("mol_charge", -1),
        ("chg", 1),
        ("charges", 1.0),
        ("spin_state", 3),
        ("molSpin", 3),
        ("2S+1", 3),
        ("num_electrons", 9),
        ("magnetization", 2),
        ("nalpha", 6),
    ],
)
def test_a_number_that_alludes_to_charge_or_spin_is_refused_by_name(name: str, value: float) -> None:
    water = molecule("H2O")
    water.info[name] = value
    with pytest.raises(StructureError) as error:
        check([water])
    assert f"info['{name}'] may decide its label, but is not read; write info['" in str(error.value)


@pytest.mark.parametrize(
    "info",
    [
        {"num_electrons": 10},
        {"spin_state": 1},
        {"spin": 3, "unpaired_electrons": 2},
        {"charge": 2, "mol_charge": 2},
        {"nspin": 2},
        {"spin_polarized": True},
        {"charge_error": 0.02},
        {"uhf": 0},
    ],
)
def test_what_agrees_or_decides_nothing_is_no_reason_to_refuse(info: dict[str, Any]) -> None:
    water = molecule("H2O")
    water.info.update(info)
    check([water])


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({"magmom": 2.0}, "magnetic moment in its calculator's results is 2.00 μB"),
        ({"charges": np.array([0.4, 0.61])}, "add up to 1.01"),
    ],
)
def test_a_calculation_of_another_charge_or_spin_is_refused(results: dict[str, Any], says: str) -> None:
    oxygen = Atoms("O2", [(0, 0, 0), (0, 0, 1.2)])
    oxygen.calc = SinglePointCalculator(oxygen, energy=-1.0, forces=np.zeros((2, 3)), **results)
    with pytest.raises(StructureError, match=says):
        check([oxygen])


def test_partial_charges_and_the_right_spin_are_no_reason_to_refuse() -> None:
    oxygen = Atoms("O2", [(0, 0, 0), (0, 0, 1.2)], info={"spin": 3})
    oxygen.calc = SinglePointCalculator(oxygen, energy=-1.0, magmom=-1.99, charges=np.array([0.3, 0.2]))
    check([oxygen])


def test_a_gradient_is_not_taken_for_forces(tmp_path: Path) -> None:
    file = tmp_path / "spice.xyz"
    file.write_text(
        "2\nProperties=species:S:1:pos:R:3:dft_total_gradient:R:3 dft_total_energy=-31.0\n"
        "H 0 0 0 0 0 1\nH 0 0 0.9 0 0 -1\n"
    )
    with pytest.raises(StructureError, match=r"forces are minus the gradient; write them: .* = -atoms\.arrays\["):
        psiflow.Dataset.load(file, energy="dft_total_energy", forces="dft_total_gradient")


def test_a_gradient_beside_forces_is_no_rival_if_it_is_minus_them() -> None:
    forces = np.array([[0, 0, 1.0], [0, 0, -1.0]])
    hydrogen = Atoms("H2", [(0, 0, 0), (0, 0, 0.9)])
    hydrogen.calc = SinglePointCalculator(hydrogen, energy=-31.0, forces=forces)
    hydrogen.arrays["gradient"] = -forces
    assert np.array_equal(label_of(labelled(hydrogen, "data 0")).forces, forces)
    hydrogen.arrays["gradient"] = forces
    with pytest.raises(StructureError, match="gradient in addition to forces"):
        labelled(hydrogen, "data 0")


def test_the_virial_of_a_slab_gives_its_stress_and_another_stress_is_refused() -> None:
    slab = fcc111("Al", (1, 1, 2), vacuum=5.0)
    assert slab.pbc.tolist() == [True, True, False]
    slab.cell[2] = (0, 0, 14.0)
    slab.calc = SinglePointCalculator(slab, energy=-1.0, forces=np.zeros((2, 3)))
    slab.info["virial"] = np.diag([1.0, 2.0, 3.0])
    stress = label_of(labelled(slab, "data 0")).stress
    assert stress is not None
    assert np.allclose(stress[:3], -np.array([1, 2, 3]) / slab.get_volume())
    del slab.info["virial"]
    slab.info["REF_stress"] = np.eye(3)
    with pytest.raises(StructureError, match="it has REF_stress, which is not read"):
        labelled(slab, "data 0")


@pytest.mark.parametrize("name", ["a.xyz.gz", "a.XYZ", "a.EXTXYZ", "frames"])
def test_a_blank_line_loses_nothing_under_any_name(name: str, tmp_path: Path) -> None:
    text = (FRAME + "\n" + FRAME).replace("\n\nH", '\nProperties=species:S:1:pos:R:3 pbc="F F F"\nH').encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(StructureError, match="line 5 is blank"):
        read(tmp_path / name)


@pytest.mark.parametrize("packed", [False, True])
def test_formal_charges_of_a_pdb_file_are_not_lost(packed: bool, tmp_path: Path) -> None:
    file = tmp_path / ("a.pdb.gz" if packed else "a.pdb")
    file.write_bytes(gzip.compress(PDB.encode()) if packed else PDB.encode())
    (found,) = read(file)
    assert charge_of(found) == -1


def test_what_an_ase_database_holds_beside_its_structures_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    water, forces = molecule("H2O"), np.eye(3) - 1 / 3
    with ase.db.connect(file) as database:
        database.write(water)
        database.write(water, charge=1, spin=2, total_energy=-76.0, data={"atomic_forces": forces})
    (found,) = read(f"{file}@-1")
    assert (found.info["charge"], found.info["spin"]) == (1, 2)
    (labelled_one,) = psiflow.Dataset.load(f"{file}@1:", energy="total_energy", forces="atomic_forces")
    assert label_of(labelled_one).energy == -76.0
    assert np.allclose(label_of(labelled_one).forces, forces)
    with pytest.raises(StructureError, match="total_energy"):
        import_labels(Path(f"{file}@1"), catalogue.spec("reference", "ase", {"calculator": "emt"}))


def test_energy_alone_under_another_name_is_told_with_the_way() -> None:
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, forces=np.zeros((3, 3)))
    water.info["total_energy"] = -76.0
    with pytest.raises(StructureError, match=r"Dataset\.load\(path, energy='total_energy', forces='forces'\)"):
        labelled(water, "data 0")


def test_a_constraint_of_no_atom_holds_nothing() -> None:
    water = molecule("H2O")
    water.set_constraint(FixAtoms([]))
    check([water])


@pytest.mark.parametrize("name", ["stress", "virial"])
def test_six_numbers_where_extended_xyz_has_nine_are_told_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(FRAME.replace("\n\n", f'\nLattice="5 0 0 0 5 0 0 0 5" {name}="1 2 3 4 5 6"\n'))
    with pytest.raises(StructureError, match=rf"a\.xyz: {name} has not nine numbers"):
        read(tmp_path / "a.xyz")
