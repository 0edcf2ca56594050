"""Structures: what their hash depends on, that plain data lose nothing, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.data import chemical_symbols
from hypothesis import given
from hypothesis import strategies as st

from psiflow_core.checks import check, closest_pair
from psiflow_core.errors import StructureError
from psiflow_core.reading import read
from psiflow_core.structures import (
    Label,
    canonical,
    charge_of,
    digest,
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
        st.dictionaries(st.text(min_size=1), st.one_of(st.booleans(), st.integers(), coordinate, st.text()))
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
        setattr(atoms, name, value)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms(), "no atoms"),
        (_changed(positions=np.full((3, 3), np.nan)), "not finite"),
        (_changed(positions=np.full((3, 3), np.inf)), "not finite"),
        (_changed(pbc=True), "cell vectors are missing"),
        (_water(charge=1), "9 electrons cannot have spin multiplicity 1"),
        (_water(spin=2), "10 electrons cannot have spin multiplicity 2"),
        (_water(spin=0), "multiplicity 0"),
        (_water(charge=0.9), r"info\['charge'\] is 0\.9, not a whole number; set it to one"),
        (_water(charge=float("nan")), "'charge'.* is nan, not a whole number"),
        (_water(charge="one"), "'charge'.* is 'one', not a whole number"),
        (_water(spin=1.5), r"'spin'.* is 1\.5, not a whole number"),
        (_changed(constraints=[FixAtoms([0])]), r"constraints \(FixAtoms\), which are not kept; remove them"),
        (_changed(constraints=[FixAtoms([0]), FixBondLength(0, 1)]), r"\(FixAtoms, FixBondLengths\)"),
        (_magnetic(bulk("Fe"), np.nan), "moments are not finite"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.29]]), "0.290 Å apart"),
        (Atoms("He", cell=[0.2, 5, 5], pbc=True), "0.200 Å apart"),
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
    check([molecule("O2"), _magnetic(bulk("Fe"), 2.2), _water(charge=1.0, spin=2.0)])


@pytest.mark.parametrize("given", [1.0, np.int64(1), np.float32(1), True])
def test_a_whole_number_of_any_type_is_a_charge(given: object) -> None:
    assert charge_of(_water(charge=given)) == 1
    assert digest(_water(charge=given)) == digest(_water(charge=1))


@pytest.mark.parametrize("key", ["charge", "spin"])
@pytest.mark.parametrize("ask", [digest, {"charge": charge_of, "spin": spin_of}])
def test_a_charge_or_spin_that_is_not_whole_is_not_rounded(key: str, ask: Any) -> None:
    with pytest.raises(StructureError, match=f"info.*{key}.* is 0.9"):
        (ask[key] if isinstance(ask, dict) else ask)(_water(**{key: 0.9}))


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
