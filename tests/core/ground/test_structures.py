"""Structures: what their hash depends on, that plain data lose nothing, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, neighborlist
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixedPlane, FixInternals
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list
from hypothesis import given
from hypothesis import strategies as st

from psiflow_core.checks import check, closest_pair, shortest_period
from psiflow_core.constraints import fixed_atoms
from psiflow_core.electrons import electrons, says_electrons
from psiflow_core.errors import StructureError
from psiflow_core.labels.reading import read
from psiflow_core.structures import (
    Label,
    bare,
    canonical,
    charge_of,
    digest,
    displaced,
    from_plain,
    isolated_atom,
    label_of,
    sha256,
    species,
    spin_of,
    to_plain,
    with_label,
)

KNOWN_HASH = "9f2be9d7b10b75137d86b0399a1e0bbc3d8e66da04e0173374ac99b706b8968e"
"""Of H₂: labels that are paid for are found by it."""

coordinate = st.floats(-1e3, 1e3)
vector = st.lists(coordinate, min_size=3, max_size=3)


@st.composite
def structures(draw: st.DrawFn, least: int = 0) -> Atoms:
    """Any species, positions, cell, periodicity, charge and spin; physically nonsense, mostly."""
    numbers = draw(st.lists(st.integers(1, 94), min_size=least, max_size=5))
    positions = [draw(vector) for _ in numbers]
    cell = [draw(vector) for _ in range(3)]
    pbc = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    info = {"charge": draw(st.integers(-3, 3)), "spin": draw(st.integers(1, 6))}
    return Atoms(numbers, np.array(positions).reshape(-1, 3), cell=cell, pbc=pbc, info=info)


@given(structures(least=1), st.data())
def test_the_hash_ignores_what_a_label_does_not_depend_on(atoms: Atoms, data: st.DataObject) -> None:
    other = atoms.copy()
    other.set_momenta([data.draw(vector) for _ in other])
    other.set_tags(data.draw(st.integers(0, 9)))
    other.info["name"] = data.draw(st.text())
    other.set_cell(np.where(atoms.pbc[:, None], atoms.cell, data.draw(vector)))
    assert digest(other) == digest(atoms)
    assert digest(with_label(other, Label(1.0, np.zeros((len(other), 3))))) == digest(atoms)


@given(structures(least=1), st.data())
def test_the_hash_sees_magnetic_moments_and_they_survive_json(atoms: Atoms, data: st.DataObject) -> None:
    collinear = data.draw(st.booleans())
    moments = np.array([data.draw(coordinate if collinear else vector) for _ in atoms])
    moments[0] = 2.2
    magnetic = atoms.copy()
    magnetic.set_initial_magnetic_moments(moments)
    assert digest(magnetic) != digest(atoms)
    again = from_plain(json.loads(json.dumps(to_plain(with_label(magnetic, Label(0.0, np.zeros((len(atoms), 3))))))))
    assert np.array_equal(again.get_initial_magnetic_moments(), moments)
    assert digest(again) == digest(magnetic)
    magnetic.set_initial_magnetic_moments(-moments)
    assert digest(magnetic) != digest(again)


def test_moments_that_are_zero_are_as_good_as_none() -> None:
    copper = bulk("Cu")
    for zero in (0.0, -0.0):
        other = copper.copy()
        other.set_initial_magnetic_moments([zero])
        assert digest(other) == digest(copper)
        assert to_plain(other) == to_plain(copper)


def test_the_hash_of_a_structure_without_moments_is_the_one_it_always_was() -> None:
    assert digest(Atoms("H2", [[0, 0, 0], [0, 0, 0.75]])) == KNOWN_HASH


@given(structures(least=1))
def test_minus_zero_is_zero(atoms: Atoms) -> None:
    plus, minus = atoms.copy(), atoms.copy()
    plus.positions[0, 0], minus.positions[0, 0] = 0.0, -0.0
    assert digest(plus) == digest(minus)


@given(structures(least=1), st.integers(0, 2), st.integers(0, 2))
def test_the_hash_sees_the_last_bit_of_every_position(atoms: Atoms, axis: int, other_axis: int) -> None:
    moved = atoms.copy()
    moved.positions[-1, axis] = np.nextafter(moved.positions[-1, axis], np.inf)
    assert digest(moved) != digest(atoms)
    deformed = atoms.copy()
    deformed.cell[axis, other_axis] = np.nextafter(deformed.cell[axis, other_axis], np.inf)
    assert (digest(deformed) != digest(atoms)) == bool(atoms.pbc[axis])


@given(structures(least=1), st.integers(0, 2))
def test_the_hash_sees_species_charge_spin_and_periodicity(atoms: Atoms, axis: int) -> None:
    changed = [atoms.copy() for _ in range(4)]
    changed[0].numbers[0] += 1
    changed[1].info["charge"] += 1
    changed[2].info["spin"] += 1
    changed[3].pbc[axis] = not atoms.pbc[axis]
    assert len({digest(other) for other in [atoms, *changed]}) == 5


@given(structures(least=2))
def test_the_hash_sees_the_order_of_different_atoms(atoms: Atoms) -> None:
    atoms.numbers[:2] = [1, 8]
    assert digest(atoms[[1, 0, *range(2, len(atoms))]]) != digest(atoms)


def test_a_neutral_singlet_need_not_be_declared() -> None:
    plain, declared = molecule("H2O"), molecule("H2O")
    declared.info.update(charge=0, spin=1)
    assert digest(plain) == digest(declared)


@given(structures(), st.data())
def test_a_structure_survives_json_to_the_last_bit(atoms: Atoms, data: st.DataObject) -> None:
    atoms.info |= data.draw(
        st.dictionaries(
            st.text(min_size=1).filter(lambda name: not says_electrons(name)),
            st.one_of(st.booleans(), st.integers(), coordinate, st.text()),
        )
    ) | {"charge": 0, "spin": 1}
    if data.draw(st.booleans()):
        atoms.set_momenta(np.array([data.draw(vector) for _ in atoms]).reshape(-1, 3))
    again = from_plain(json.loads(json.dumps(to_plain(atoms), allow_nan=False)))
    assert digest(again) == digest(atoms)
    for array in (np.positive, np.signbit):  # equal, minus zeros too
        assert np.array_equal(array(again.positions), array(atoms.positions))
        assert np.array_equal(array(np.asarray(again.cell)), array(np.asarray(atoms.cell)))
    assert again.has("momenta") == atoms.has("momenta")
    assert np.array_equal(again.get_momenta(), atoms.get_momenta())
    assert again.info == atoms.info


@given(structures(), coordinate, st.one_of(st.none(), st.lists(coordinate, min_size=6, max_size=6)), st.data())
def test_a_label_survives_json_to_the_last_bit(
    atoms: Atoms, energy: float, stress: list[float] | None, data: st.DataObject
) -> None:
    forces = np.array([data.draw(vector) for _ in atoms], float).reshape(-1, 3)
    label = Label(energy, forces, None if stress is None else np.array(stress))
    again = label_of(from_plain(json.loads(json.dumps(to_plain(with_label(atoms, label))))))
    assert again.energy == energy
    assert np.array_equal(again.forces, forces)
    assert (again.stress is None and stress is None) or np.array_equal(again.stress, label.stress)


@given(st.dictionaries(st.text(), st.integers()), st.randoms())
def test_plain_data_hash_alike_whatever_their_order(plain: dict[str, int], random: Any) -> None:
    keys = list(plain)
    random.shuffle(keys)
    assert sha256({key: plain[key] for key in keys}) == sha256(plain)


def test_what_json_cannot_say_is_not_hashed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"energy": float("nan")})


def test_a_label_goes_where_ase_looks_for_it() -> None:
    copper = bulk("Cu")
    label = Label(-1.0, np.ones((1, 3)), np.arange(6.0))
    labelled = with_label(copper, label)
    assert copper.calc is None
    assert labelled.get_potential_energy() == -1.0
    assert np.array_equal(labelled.get_forces(), label.forces)
    assert np.array_equal(labelled.get_stress(), label.stress)
    with pytest.raises(StructureError, match="no label"):
        label_of(copper)


@pytest.mark.parametrize(
    ("symbol", "spin"), [("H", 2), ("He", 1), ("C", 3), ("N", 4), ("O", 3), ("Cr", 7), ("Cu", 2), ("Ce", 1), ("Es", 4)]
)
def test_isolated_atoms_have_the_spin_of_their_ground_state(symbol: str, spin: int) -> None:
    """Hund's rules: NIST Atomic Spectra Database, ground levels."""
    assert isolated_atom(symbol).info == {"charge": 0, "spin": spin}


@pytest.mark.parametrize("symbol", chemical_symbols[1:103])
def test_every_isolated_atom_has_a_spin_that_its_electrons_can_have(symbol: str) -> None:
    check([isolated_atom(symbol)])


@pytest.mark.parametrize("symbol", ["Lr", "Rf", "Og"])
def test_an_atom_whose_ground_state_nobody_knows_is_told(symbol: str) -> None:
    with pytest.raises(StructureError, match=rf"free {symbol} atom is not known.*use structures of elements up to No"):
        isolated_atom(symbol)


def _water(**info: object) -> Atoms:
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


def _magnetic(atoms: Atoms, moment: float) -> Atoms:
    atoms.set_initial_magnetic_moments([moment] * len(atoms))
    return atoms


def _changed(**arrays: Any) -> Atoms:
    atoms = molecule("H2O")
    for name, value in arrays.items():
        if name in ("initial_charges", "momenta", "masses"):
            atoms.set_array(name, np.array(value, float))
        else:
            setattr(atoms, name, value)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms(), "no atoms"),
        (_changed(positions=np.full((3, 3), np.nan)), "not finite"),
        (_changed(positions=np.full((3, 3), np.inf)), "not finite"),
        (_changed(pbc=True), "cell vectors are missing"),
        (_water(charge=1), "9 electrons cannot have spin multiplicity 1, but an even one up to 10; set info"),
        (_water(spin=2), "10 electrons cannot have spin multiplicity 2, but an odd one up to 11; set info"),
        (_water(spin=1001), "10 electrons cannot have spin multiplicity 1001, but an odd one up to 11"),
        (_water(charge=20), r"its charge is 20, .*; it can be -12 to 9; set info\['charge'\]"),
        (_water(charge=10), "its charge is 10, which leaves 0 electrons to 10 protons"),
        (_water(charge=-13, spin=2), "its charge is -13, .*; it can be -12 to 9"),
        (_water(charge=1e30), r"info\['charge'\] is 1e\+30, but no structure has so many electrons"),
        (_water(spin=-1e30), "'spin'.* is -1e[+]30, but no structure has so many electrons"),
        (_water(charge=float("inf")), "'charge'.* is inf, not a whole number"),
        (_water(charge=True), "'charge'.* is True, not a whole number"),
        (_water(spin=np.bool_(True)), "'spin'.* is .*True.*, not a whole number"),
        (_water(charge="1"), "'charge'.* is '1', not a whole number"),
        (_water(charge=None), "'charge'.* is None, not a whole number"),
        (_water(spin=np.ones(3)), "'spin'.*not a whole number"),
        (_water(spin=0), "multiplicity 0"),
        (_water(charge=0.9), r"info\['charge'\] is 0\.9, not a whole number; set it to a whole number"),
        (_water(charge=float("nan")), "'charge'.* is nan, not a whole number"),
        (_water(charge="one"), "'charge'.* is 'one', not a whole number"),
        (_water(spin=1.5), r"'spin'.* is 1\.5, not a whole number"),
        (
            _changed(constraints=[FixBondLength(0, 1)]),
            r"unsupported constraints \(FixBondLengths\): only FixAtoms is supported, .*; remove them",
        ),
        (_changed(constraints=[FixAtoms([0]), FixBondLength(0, 1)]), r"unsupported constraints \(FixBondLengths\)"),
        (_changed(constraints=[FixCartesian(0), FixedPlane(1, (0, 0, 1))]), r"\(FixCartesian, FixedPlane\)"),
        (_changed(constraints=[FixInternals(bonds=[(1.0, [0, 1])])]), r"\(FixInternals\)"),
        (_changed(constraints=[FixAtoms([1, 3])]), "its FixAtoms names atom 3, but its last atom is 2"),
        (_magnetic(bulk("Fe"), np.nan), "moments are not finite"),
        (_changed(initial_charges=[np.nan, 0, 0]), "initial charges are not finite"),
        (_changed(momenta=np.full((3, 3), np.nan)), r"momenta are not finite.*del atoms\.arrays\['momenta'\]"),
        (_changed(masses=[16.0, 0.0, 1.0]), r"the mass of atom 1 is 0\.0, but a mass must be above 0 amu"),
        (_changed(masses=[-16.0, 1.0, 1.0]), r"the mass of atom 0 is -16\.0"),
        (_changed(masses=[16.0, 1.0, np.inf]), "the mass of atom 2 is inf"),
        (Atoms("XH", [[0, 0, 0], [0, 0, 1]]), r"atom 0 has no element \(atomic number 0\)"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.29]]), "0.290 Å apart"),
        (Atoms("He", cell=[0.2, 5, 5], pbc=True), r"each atom is 0\.200 Å from its own image"),
        (
            Atoms("He", cell=[1, 1, 1], pbc=True),
            r"1\.000 Å from its own image.*PDB files without a cell have one of 1 Å",
        ),
        (Atoms("He", cell=[[5, 0, 0], [5.1, 1.2, 0], [0, 0, 5]], pbc=True), r"1\.204 Å from its own image"),
        (Atoms("He", cell=[1.4, 0, 0], pbc=[True, False, False]), r"1\.400 Å from its own image"),
        (Atoms("He2", [[0, 0, 0], [0, 0, 9.8]], cell=[10, 10, 10], pbc=True), "0.200 Å apart"),
    ],
)
def test_impossible_structures_are_refused_by_their_number(atoms: Atoms, says: str) -> None:
    with pytest.raises(StructureError, match=says) as error:
        check([molecule("H2O"), atoms], where="start")
    assert str(error.value).startswith("start 1 ")


def test_possible_structures_pass() -> None:
    slab = Atoms("He", cell=[5, 5, 0], pbc=[True, True, False])
    check([molecule("H2O"), _water(charge=1, spin=2), _water(spin=3), bulk("Si"), slab, isolated_atom("O")])
    check([bulk("Be"), bulk("C"), Atoms("H", cell=[9, 9, 1.6], pbc=True, info={"spin": 2})])
    check([molecule("O2"), _magnetic(bulk("Fe"), 2.2), _water(charge=1.0, spin=2.0)])


@pytest.mark.parametrize("given", [1.0, np.int64(1), np.float32(1)])
def test_a_whole_number_of_any_type_is_a_charge(given: object) -> None:
    assert charge_of(_water(charge=given)) == 1
    assert digest(_water(charge=given)) == digest(_water(charge=1))


@pytest.mark.parametrize("key", ["charge", "spin"])
@pytest.mark.parametrize("ask", [digest, {"charge": charge_of, "spin": spin_of}])
def test_a_charge_or_spin_that_is_not_whole_is_not_rounded(key: str, ask: Any) -> None:
    with pytest.raises(StructureError, match=f"info.*{key}.* is 0.9"):
        (ask[key] if isinstance(ask, dict) else ask)(_water(**{key: 0.9}))


def test_a_walker_needs_an_atom_that_is_free_and_a_label_none() -> None:
    still = _changed(constraints=[FixAtoms([0, 1, 2])])
    check([still])
    with pytest.raises(StructureError, match=r"start 0 .*all its atoms are fixed, so no walker can move"):
        check([still], "start", moving=True)
    check([_changed(constraints=[FixAtoms([0, 1])])], "start", moving=True)


@pytest.mark.parametrize("indices", [[2, 0], [-1, 0], [True, False, True]])
def test_fixed_atoms_travel_as_plain_data(indices: list[int]) -> None:
    """In whatever order they are told, and from several constraints."""
    for constraints in ([FixAtoms(indices)], [FixAtoms([2]), FixAtoms([0]), FixAtoms([2])]):
        slab = _changed(constraints=constraints)
        plain = json.loads(json.dumps(to_plain(slab)))
        assert plain["fixed"] == [0, 2]
        assert fixed_atoms(from_plain(plain)).tolist() == [True, False, True]
        assert to_plain(from_plain(plain)) == plain
        assert fixed_atoms(bare(slab)).tolist() == [True, False, True]
    assert "fixed" not in to_plain(molecule("H2O"))


def test_a_label_keeps_the_forces_on_fixed_atoms() -> None:
    """ASE's `get_forces` says zero for them."""
    slab, forces = _changed(constraints=[FixAtoms([0])]), np.arange(1.0, 10.0).reshape(3, 3)
    labelled = with_label(slab, Label(-1.0, forces))
    assert not labelled.get_forces()[0].any()
    for found in (labelled, from_plain(to_plain(labelled))):
        assert np.array_equal(label_of(found).forces, forces)
        assert fixed_atoms(found).tolist() == [True, False, False]


def test_displacements_leave_fixed_atoms_and_their_cell_alone() -> None:
    copper = bulk("Cu", cubic=True)
    copper.set_constraint(FixAtoms([0, 3]))
    moved = displaced(copper, 0.2, 0.05, np.random.default_rng(0))
    assert np.array_equal(moved.positions[[0, 3]], copper.positions[[0, 3]])
    assert np.abs(moved.positions - copper.positions)[[1, 2]].min() > 0
    assert np.array_equal(moved.cell, copper.cell)
    assert fixed_atoms(moved).tolist() == [True, False, False, True]


def test_no_structure_at_all_is_refused() -> None:
    with pytest.raises(StructureError, match="start: there is no structure"):
        check([], where="start")


def test_the_closest_pair_may_be_an_image() -> None:
    atoms = Atoms("He2", [[0, 0, 0], [0, 0, 9.0]], cell=[10, 10, 10], pbc=True)
    found = closest_pair(atoms, 3.0)
    assert found is not None
    assert found[0] == pytest.approx(1.0)
    assert closest_pair(atoms, 0.9) is None


def test_species_come_once_by_atomic_number() -> None:
    assert species([molecule("CH3CHO"), molecule("H2O"), Atoms("Cu")]) == ["H", "C", "O", "Cu"]


@pytest.mark.parametrize("content", [None, "", "this is\nno structure file\n"])
def test_files_without_structures_are_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "start.xyz"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StructureError, match=r"start\.xyz"):
        read(path)


def test_a_file_that_cannot_be_read_is_told_in_full_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.xyz").write_text("this is not a structure\n")
    with pytest.raises(StructureError) as missing:
        read("none.xyz")
    with pytest.raises(StructureError) as nonsense:
        read("some.xyz")
    assert str(missing.value).endswith(f"{tmp_path / 'none.xyz'}: there is no such file; check the path")
    assert str(tmp_path / "some.xyz") in str(nonsense.value)
    assert "give a file that ase.io.read reads" in str(nonsense.value)
    for told in (missing.value, nonsense.value):
        assert told.__cause__ is None, "the cause is in the message"
        assert told.__suppress_context__


OXYGEN = {"spin": 3}
CHARGED = {"charge": -2}


def _pair(**info: Any) -> Atoms:
    return Atoms("O2", [[0, 0, 0], [0, 0, 1.21]], info=info)


def _with(atoms: Atoms, name: str, values: Any) -> Atoms:
    atoms.set_array(name, np.array(values, float))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        *[(_pair(**{name: 3}), OXYGEN) for name in ("spin", "multiplicity", "total_spin", "spin_multiplicity", "Spin")],
        *[(_pair(**{name: 3.0}), OXYGEN) for name in ("molecular_multiplicity", "MULTIPLICITY", "spinMultiplicity")],
        *[(_pair(**{name: -2}), CHARGED) for name in ("charge", "total_charge", "net_charge", "Charge", "tot_charge")],
        *[(_pair(**{name: -2.0}), CHARGED) for name in ("molecular_charge", "formal_charge", "TotalCharge")],
        (_with(_pair(), "initial_magmoms", [1, 1]), OXYGEN),
        (_with(_pair(), "initial_magmoms", [-1, -1]), OXYGEN),
        (_with(_pair(), "initial_magmoms", [[0, 1, 0], [0, 1, 0]]), OXYGEN),
        (_with(_pair(), "initial_magmoms", [1, -1]), {"spin": 1}),
        (_with(_pair(), "initial_magmoms", [0, 0]), {}),
        (_with(_pair(), "initial_charges", [-1, -1]), CHARGED),
        (_with(_pair(), "initial_charges", [-0.99, -1.0]), CHARGED),
        (_with(_pair(), "initial_charges", [0.4, -0.4]), {"charge": 0}),
        (_with(_pair(), "formal_charges", [-1, -1]), CHARGED),
        (_with(_pair(spin=3, multiplicity=3.0), "initial_magmoms", [1.2, 1.1]), OXYGEN),
        (_with(_pair(charge=0), "initial_charges", [0.3, 0.1]), {"charge": 0}),
        (_pair(), {}),
    ],
    ids=lambda given: str(given.info or [*given.arrays]) if isinstance(given, Atoms) else "",
)
def test_charge_and_spin_are_known_by_all_their_usual_names(atoms: Atoms, said: dict[str, int]) -> None:
    check([atoms])
    found = electrons(atoms)
    assert found == said
    assert (charge_of(atoms), spin_of(atoms)) == (said.get("charge", 0), said.get("spin", 1))
    travelled = from_plain(json.loads(json.dumps(to_plain(atoms))))
    assert travelled.info == said, "under psiflow's names from here on"
    assert digest(travelled) == digest(atoms)
    assert bare(atoms).info == said


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (
            _pair(charge=0, total_charge=2),
            r"several values for charge.*info\['charge'\] is 0, info\['total_charge'\] is 2",
        ),
        (_pair(spin=1, multiplicity=3), r"several values for spin.*info\['spin'\] is 1, info\['multiplicity'\] is 3"),
        (_with(_pair(spin=1), "initial_magmoms", [1, 1]), "the sum of initial_magmoms is 3"),
        (_with(_pair(charge=0), "initial_charges", [-1, -1]), "the sum of initial_charges is -2"),
        (_with(_pair(), "initial_magmoms", [0.7, 0.7]), "initial_magmoms do not add up to a whole number"),
        (_with(_pair(), "initial_charges", [-0.3, 0]), "initial_charges do not add up to a whole number"),
        (_pair(total_charge=0.5), r"info\['total_charge'\] is 0\.5, not a whole number"),
        (
            _pair(uhf=2),
            r"info\['uhf'\] may decide its label, but is not read; .*electrons: write info\['spin'\] = uhf \+ 1",
        ),
        (_pair(unpaired_electrons=2), r"write info\['spin'\]"),
        (_pair(q=-1), r"info\['q'\].*if it is the charge, write info\['charge'\]"),
        (_pair(total_magnetization=2.0), r"the moment in μB plus 1"),
        (_with(_pair(), "initial_magnetic_moments", [1, 1]), r"write atoms\.set_initial_magnetic_moments"),
    ],
)
def test_a_charge_or_spin_that_is_not_clear_is_refused_by_its_name(atoms: Atoms, says: str) -> None:
    with pytest.raises(StructureError, match=says):
        check([atoms])


def test_a_crystals_moments_are_an_order_and_no_multiplicity() -> None:
    iron = _magnetic(bulk("Fe", cubic=True), 2.3)
    check([iron])
    assert electrons(iron) == {}
    assert spin_of(iron) == 1


def test_a_radical_with_a_label_need_not_tell_its_spin() -> None:
    radical = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    check([radical], labelled=True)
    with pytest.raises(StructureError, match="several values for "):
        check([_pair(charge=0, total_charge=2)], labelled=True)


def test_the_hash_sees_initial_charges() -> None:
    water, other = molecule("H2O"), molecule("H2O")
    other.set_initial_charges([-0.8, 0.4, 0.4])
    assert digest(water) != digest(other)
    water.set_initial_magnetic_moments([-0.8, 0.4, 0.4])
    assert digest(water) != digest(other)
    other.set_initial_charges([0.0, 0.0, 0.0])
    assert digest(other) == digest(molecule("H2O"))


def test_a_bare_structure_has_what_its_label_depends_on_and_its_masses() -> None:
    heavy = _with(_magnetic(bulk("Fe", cubic=True), 2.3), "masses", [54.0, 57.0])
    heavy.info.update(total_charge=1, config_type="start")
    heavy.set_momenta(np.ones((2, 3)))
    heavy.set_tags(1)
    copy = bare(with_label(heavy, Label(0.0, np.zeros((2, 3)))))
    assert digest(copy) == digest(heavy)
    assert copy.info == {"charge": 1}
    assert list(copy.get_masses()) == [54.0, 57.0]
    assert not copy.has("momenta")
    assert not copy.has("tags")
    assert copy.calc is None


@given(structures(least=1), st.data())
def test_the_closest_pair_is_that_of_all_distances(atoms: Atoms, data: st.DataObject) -> None:
    """Held against ASE's list of neighbours, in narrow cells, periodic or not."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    atoms.positions[:] = random.uniform(-8, 8, (len(atoms), 3))
    atoms.set_cell(random.uniform(3, 9, 3) * np.eye(3) + random.normal(0, 1, (3, 3)))
    distances = neighbor_list("d", atoms, 4.0)
    found = closest_pair(atoms, 4.0)
    assert (found is None) == (len(distances) == 0)
    assert found is None or found[0] == pytest.approx(distances.min())


def test_a_cell_along_which_nothing_repeats_is_not_filled_with_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, asked = molecule("H2O", vacuum=500.0), []
    listing = neighborlist.primitive_neighbor_list
    monkeypatch.setattr(
        neighborlist, "primitive_neighbor_list", lambda *given: asked.append(given[2]) or listing(*given)
    )
    assert closest_pair(wide, 1.0) is not None
    assert not asked, "a molecule has no images"
    wide.pbc = [True, False, False]
    wide.cell[0] = [5.0, 0, 0]
    assert closest_pair(wide, 1.0) is not None
    assert np.abs(asked[0]).max() <= 5.0


@pytest.mark.parametrize("positions", [[[0, 0, 0], [0, 0, 0], [5, 5, 5]], [[5, 5, 5], [0, 0, 0], [0, 0, 0]]])
def test_atoms_at_the_same_place_are_a_pair(positions: Any) -> None:
    found = closest_pair(Atoms("H3", positions), 0.5)
    assert found is not None
    assert found[0] == 0.0
    assert found[1] != found[2]


def test_one_atom_has_no_neighbour() -> None:
    assert closest_pair(Atoms("H"), 5.0) is None
    assert shortest_period(Atoms("H")) == np.inf
    assert shortest_period(bulk("Cu")) == pytest.approx(3.61 / np.sqrt(2))


def _smeared(**results: float) -> Atoms:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, forces=np.zeros((1, 3)), **results)
    return atoms


def test_the_energy_of_a_label_is_the_one_whose_gradient_the_forces_are() -> None:
    assert label_of(_smeared(energy=-10.0)).energy == -10.0
    assert label_of(_smeared(energy=-10.0, free_energy=-10.5)).energy == -10.5
    assert label_of(_smeared(free_energy=-10.5)).energy == -10.5


def _displace(atoms: Atoms) -> None:
    atoms.positions[0, 0] += 0.4


def _strain(atoms: Atoms) -> None:
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)


def _transmute(atoms: Atoms) -> None:
    atoms.numbers[0] = 47


def _magnetise(atoms: Atoms) -> None:
    atoms.set_initial_magnetic_moments([1.0] * len(atoms))


@pytest.mark.parametrize("change", [_displace, _strain, _transmute, _magnetise])
@pytest.mark.parametrize("kind", ["live", "kept"])
def test_a_structure_that_was_changed_has_no_label_any_more(change: Any, kind: str) -> None:
    copper = bulk("Cu", cubic=True)
    copper.calc = EMT()
    copper.get_potential_energy()
    copper.get_forces()
    if kind == "kept":
        copper = with_label(copper, label_of(copper))
    assert "label" in to_plain(copper)
    change(copper)
    assert "label" not in to_plain(copper)
    with pytest.raises(StructureError, match="no label: it was moved or changed after it was computed"):
        label_of(copper)
