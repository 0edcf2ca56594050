"""Files of structures: what a reader would lose without a word is told, and the way to mend it."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from psiflow_core.checks import check
from psiflow_core.electrons import electrons
from psiflow_core.errors import StructureError
from psiflow_core.labels.reading import read

WATER = "O 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
MOL = """hydroxide


  2  1  0  0  0  0            999 V2000
    0.0000    0.0000    0.0000 O   0  5  0  0  0  0  0  0  0  0  0  0
    0.0000    0.0000    0.9700 H   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0
M  CHG  1   1  -1
M  END
"""
TAIL = "Cu8 Cu 0.5 0 0.5 1\nCu9 Cu 0 0.5 0.5 1\n"


def cif(sites: str) -> str:
    lengths = "".join(f"_cell_length_{axis} 3.8\n" for axis in "abc")
    angles = "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    loop = "loop_\n" + "".join(f"_atom_site_{column}\n" for column in columns)
    return f"data_x\n{lengths}{angles}_symmetry_space_group_name_H-M 'P 1'\n{loop}{sites}{TAIL}"


def pdb(occupancy: float, cell: float = 0.0) -> str:
    atom = "ATOM  {:5d}  {:<3s} HOH A   1    {:8.3f}{:8.3f}{:8.3f}{:6.2f}  0.00          {:>2s}\n"
    places = [("O", 0, 0, 0.119), ("H1", 0, 0.763, -0.477), ("H2", 0, -0.763, -0.477)]
    box = f"CRYST1{cell:9.3f}{cell:9.3f}{cell:9.3f}  90.00  90.00  90.00 P 1           1\n" if cell else ""
    return box + "".join(atom.format(n, *one, occupancy, one[0][0]) for n, one in enumerate(places)) + "END\n"


def dump(columns: str, row: str) -> str:
    box = "ITEM: BOX BOUNDS pp pp pp\n" + "0 9\n" * 3
    return f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\n{box}ITEM: ATOMS {columns}\n{row}\n"


def xyz(comment: str) -> str:
    return f"3\n{comment}\n{WATER}"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "alloy.cif",
            cif("Cu1 Cu 0 0 0 0.6\nAu1 Au 0 0 0 0.4\n"),
            r"atom 0, at \[0.0, 0.0, 0.0\].* 0.6 Cu, 0.4 Au",
        ),
        ("vacancy.cif", cif("Cu1 Cu 0 0 0 0.5\n"), "is occupied by 0.5 Cu; choose one order of whole atoms"),
        ("split.cif", cif("Cu1 Cu 0 0 0 0.5\nCu2 Cu 0.15 0 0 0.5\n"), "is occupied by 0.5 Cu"),
        ("altloc.pdb", pdb(0.5), "atom 0 has occupancy 0.5; choose one position for each atom"),
        (
            "lower.xyz",
            xyz('lattice="8 0 0 0 8 0 0 0 8"'),
            "under the name 'lattice', which is not read; write Lat",
        ),
        ("cell.xyz", xyz('cell="8 0 0 0 8 0 0 0 8"'), "a cell under the name 'cell'"),
        ("upper.xyz", xyz('LATTICE="8 0 0 0 8 0 0 0 8"'), "a cell under the name 'LATTICE'"),
        ("i_pi.xyz", xyz("# CELL(abcABC): 15 15 15 90 90 90 Step: 0 positions{angstrom} cell{angstrom}"), "'CELL"),
        ("bohr.xyz", xyz("# positions{atomic_unit}"), "its comment says atomic_unit, but lengths are read in Å"),
        ("units.xyz", xyz("units=bohr"), "its comment says bohr, but lengths are read in Å"),
        ("words.xyz", xyz("water, in Bohr"), "its comment says Bohr"),
        ("hartree.xyz", xyz('note="energies in Hartree"'), "its comment says Hartree"),
        ("blank.xyz", xyz("") + "\n" + xyz(""), "line 6 is blank, and all frames after it would be ignored"),
        ("two.sdf", 2 * (MOL + "$$$$\n"), "holds several molecules, but ASE reads only one; split the file"),
        ("cut.xyz", xyz("") + "3\n\nO 0 0 0\n", "Frame has 1 atoms, expected 3"),
        ("more.xyz", xyz("") + "H 0 0 0\n", "Expected xyz header"),
        ("types.lammpstrj", dump("id type x y z", "1 2 0 0 0"), r"it has types \[2\] but no elements"),
    ],
)
def test_what_would_be_lost_is_told(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(StructureError, match=says) as told:
        read(tmp_path / name)
    assert name in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("whole.cif", cif("Cu1 Cu 0 0 0 1\n")),
        ("whole.pdb", pdb(1.0, cell=9.0)),
        ("unused.pdb", pdb(0.0)),
        ("cell.xyz", xyz('Lattice="8 0 0 0 8 0 0 0 8" cell="the small one"')),
        ("plain.xyz", xyz("bohrium oxide, harvested")),
        ("end.xyz", xyz("") + "\n\n"),
        ("vectors.xyz", xyz("") + "VEC1 9 0 0\nVEC2 0 9 0\nVEC3 0 0 9\n"),
        ("elements.lammpstrj", dump("id type element x y z", "1 2 Cu 0 0 0")),
        ("masses.lammpstrj", dump("id type mass x y z", "1 2 63.546 0 0 0")),
    ],
)
def test_a_file_that_loses_nothing_is_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = read(tmp_path / name)
    assert [atoms.get_chemical_formula() for atoms in found] == [
        "H2O" if "O" in found[0].symbols else ("Cu3" if len(found[0]) == 3 else "Cu")
    ]


def numbered(folder: Path, name: str) -> Path:
    """Five frames that know their number."""
    frames = [molecule("H2O") for _ in range(5)]
    for number, atoms in enumerate(frames):
        atoms.info["number"] = number
    write(folder / "plain.xyz", frames)
    return (folder / "plain.xyz").rename(folder / name)


@pytest.mark.parametrize(
    ("file", "asked", "numbers"),
    [
        ("water@300K.xyz", "water@300K.xyz", [0, 1, 2, 3, 4]),
        ("water@300K.xyz", "water@300K.xyz@1", [1]),
        ("md.xyz", "md.xyz", [0, 1, 2, 3, 4]),
        ("md.xyz", "md.xyz@-1", [4]),
        ("md.xyz", "md.xyz@0:2", [0, 1]),
        ("md.xyz", "md.xyz@::2", [0, 2, 4]),
        ("md.xyz", "md.xyz@:", [0, 1, 2, 3, 4]),
        ("md@-1", "md@-1", [0, 1, 2, 3, 4]),
    ],
)
def test_a_selection_is_honoured_and_an_at_sign_in_a_name_is_none(
    file: str, asked: str, numbers: list[int], tmp_path: Path
) -> None:
    numbered(tmp_path, file)
    assert [atoms.info["number"] for atoms in read(tmp_path / asked)] == numbers
    assert [atoms.info["number"] for atoms in read(str(tmp_path / asked))] == numbers


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("md.xyz@last", "'last' is not a selection of .*write @-1, @0:10 or @::10"),
        ("md.xyz@", "'' is not a selection"),
        ("md.xyz@1:2:3:4", "is not a selection"),
        ("md.xyz@7", "cannot read structures"),
        ("md.xyz@7:", "holds no structure"),
        ("md.xyz@::0", "cannot read structures|is not a selection"),
        ("other.xyz@-1", "no such file"),
        (".", "it is a folder; give a file in it"),
    ],
)
def test_a_selection_of_nothing_is_refused(asked: str, says: str, tmp_path: Path) -> None:
    numbered(tmp_path, "md.xyz")
    with pytest.raises(StructureError, match=says):
        read(tmp_path / asked)


def test_lengths_in_nanometres_are_read_as_such(tmp_path: Path) -> None:
    """A property of ASE's reader of .gro files on which `read` relies."""
    atoms = molecule("H2O", vacuum=4.0)
    ase.io.write(tmp_path / "water.gro", atoms)
    (found,) = read(tmp_path / "water.gro")
    assert found.get_distance(0, 1) == pytest.approx(atoms.get_distance(0, 1), abs=0.02)


def test_a_format_in_which_constraints_are_kept_keeps_them(tmp_path: Path) -> None:
    """`FixAtoms` is kept, others are refused by `check`; a reader that dropped them would hide them from it."""
    from ase.constraints import FixAtoms

    copper = bulk("Cu", cubic=True)
    copper.set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "POSCAR", copper)
    assert read(tmp_path / "POSCAR")[0].constraints


def test_a_file_of_many_structures_is_read_whole(tmp_path: Path) -> None:
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, 0.7 + 0.01 * n]]) for n in range(20)]
    write(tmp_path / "many.xyz", frames)
    assert np.allclose([one.get_distance(0, 1) for one in read(tmp_path / "many.xyz")], np.arange(0.7, 0.9, 0.01)[:20])


REAL = WATER.replace(" 0 ", " 0.0 ").replace(" 0 ", " 0.0 ")
GAUSSIAN_OUT = f""" Entering Gaussian System, Link 0=g16
 Charge =  1 Multiplicity = 2
                         Standard orientation:
 {"-" * 69}
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 {"-" * 69}
      1          8           0        0.000000    0.000000    0.119000
      2          1           0        0.000000    0.763000   -0.477000
      3          1           0        0.000000   -0.763000   -0.477000
 {"-" * 69}
 SCF Done:  E(UB3LYP) =  -75.9000000     A.U. after    9 cycles
"""
GAUSSIAN_IN = f"# b3lyp/6-31g\n\ntitle\n\n1 2\n{REAL}\n"
ORCA = f"""                                 * O   R   C   A *
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
{REAL}
----------------------------
CARTESIAN COORDINATES (A.U.)
----------------------------
Number of atoms                             ...      3
 Total Charge           Charge          ....    1
 Multiplicity           Mult            ....    2
FINAL SINGLE POINT ENERGY       -75.900000000000
                             ****ORCA TERMINATED NORMALLY****
"""


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("gaussian.log", GAUSSIAN_OUT, {"charge": 1, "spin": 2}),
        ("gaussian.gjf", GAUSSIAN_IN, {"charge": 1, "spin": 2}),
        ("orca.out", ORCA, {"charge": 1, "spin": 2}),
        ("hydroxide.mol", MOL, {"charge": -1}),
        ("hydroxide.sdf", MOL + "$$$$\n", {"charge": -1}),
    ],
)
def test_charge_and_spin_of_other_programs_files_are_not_lost(
    name: str, text: str, told: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    (found,) = read(tmp_path / name)
    assert electrons(found) == told
    check([found])


def test_a_file_of_several_charges_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two.log").write_text(GAUSSIAN_OUT + " Charge =  0 Multiplicity = 1\n")
    with pytest.raises(StructureError, match=r"two\.log has several charges or multiplicities"):
        read(tmp_path / "two.log")
