"""Data sets keep every bit, know where their structures are from, and parse no more than is asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms, FixBondLength
from psiflow_toys.campaigns import moved_water
from psiflow_toys.reference import ToyReference

import psiflow_core as psiflow
from psiflow_core.components import LabelTask, Spec
from psiflow_core.errors import CampaignError, LabelCorrupt, OptionError, StructureError
from psiflow_core.labels import frames
from psiflow_core.labels.extxyz import export_labels, import_labels, label_files, put
from psiflow_core.labels.frames import Held, StoredLabel
from psiflow_core.labels.given import structures
from psiflow_core.labels.provenance import Entry, Failure, Provenance
from psiflow_core.labels.store import label_file, write_label
from psiflow_core.structures import label_of, to_plain, with_label

TOY = Spec("reference", "toy", {"depth": 1.1, "words": 'says "é = 1"\\\n'}, "psiflow-toys", "0.1")


def labelled(atoms: Atoms) -> Atoms:
    return with_label(atoms, ToyReference().label(atoms, LabelTask(Path())))


def odd_entries() -> list[Entry]:
    """What is easily lost on the way."""
    slab = labelled(fcc111("Cu", (1, 1, 3), vacuum=4.0 + 1 / 3))
    slab.set_constraint(FixAtoms([0, 2]))
    iron = bulk("Fe", cubic=True)
    iron.rattle(0.1, seed=3)
    iron.arrays.pop("initial_magmoms")
    iron.set_initial_magnetic_moments([[0.1, 1 / 3, 2.2], [0.0, -1e-17, 3.0]])
    iron.set_initial_charges([0.1, 2 / 3 + 0.2])
    water = moved_water(1, seed=1)[0]
    water.set_momenta(np.random.default_rng(2).normal(size=(3, 3)))
    water.set_masses([16 + 1 / 7, 1.0, 2.0])
    water.info.update(charge=-1, spin=2, note='says "é = 1"\\\n and pbc 1 1', number="12", truth="T", empty="", odd="")
    alone = Atoms("H", positions=[[-0.0, 1e-12, 123456789.123456789]])
    walked = Provenance(
        TOY, "walker", "a file, structure 3", {"walker": 3, "deviation": 1 / 3, "kept": True, "a b": "c"}
    )
    return [
        Entry(slab, walked),
        Entry(labelled(iron), Provenance(origin="bootstrap")),
        Entry(labelled(water)),
        Entry(labelled(alone), Provenance(TOY)),
        Entry(
            molecule("CH4"), Provenance(origin="walker"), Failure("unconverged", 'SCF "diverged"\nafter é 50 = cycles')
        ),
        Entry(molecule("NH3", vacuum=3.0)),
    ]


def dataset_of(*entries: Entry) -> psiflow.Dataset:
    return psiflow.Dataset.of(Held(entry) for entry in entries)


def plain(data: psiflow.Dataset) -> list[dict[str, Any]]:
    return [entry.to_plain() for entry in data.entries()]


@pytest.fixture
def waters() -> psiflow.Dataset:
    return psiflow.Dataset([labelled(atoms) for atoms in moved_water(10, seed=3)], Provenance(TOY, "bootstrap"))


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of each frame that was parsed."""
    lengths: list[int] = []
    real: Callable[[str, Path], Atoms] = frames.parsed

    def counted(text: str, file: Path) -> Atoms:
        lengths.append(len(text))
        return real(text, file)

    monkeypatch.setattr(frames, "parsed", counted)
    return lengths


# A sequence ------------------------------------------------------------------------------------------------


def test_a_data_set_is_a_sequence_of_structures(waters: psiflow.Dataset) -> None:
    assert len(waters) == len(list(waters)) == 10
    assert waters[-1] == waters[9] == list(waters)[9]
    assert label_of(waters[2]).energy == waters.energies[2]
    assert np.array_equal(waters.forces[2], label_of(waters[2]).forces)
    with pytest.raises(IndexError):
        waters[10]


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        (slice(2, 8, 3), [2, 5]),
        (slice(None, None, -4), [9, 5, 1]),
        ([3, 3, -1], [3, 3, 9]),
        (np.array([4, 0]), [4, 0]),
        ([number % 5 == 0 for number in range(10)], [0, 5]),
        (np.arange(10) > 7, [8, 9]),
        ([], []),
    ],
    ids=str,
)
def test_a_part_of_a_data_set_is_a_data_set(waters: psiflow.Dataset, index: Any, numbers: list[int]) -> None:
    part = waters[index]
    assert isinstance(part, psiflow.Dataset)
    assert plain(part) == [plain(waters)[number] for number in numbers]


@pytest.mark.parametrize(
    ("index", "error", "said"),
    [
        ([True, False], IndexError, "2 truth values for 10 structures"),
        ([10], IndexError, "out of range"),
        ([0.5], TypeError, "indexed by a number, a slice, numbers or truth values"),
        ("ab", TypeError, "indexed by a number, a slice, numbers or truth values"),
    ],
)
def test_a_wrong_index_is_refused(waters: psiflow.Dataset, index: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        waters[index]


def test_what_is_done_to_a_structure_does_not_change_the_data_set(waters: psiflow.Dataset) -> None:
    before = plain(waters)
    for atoms in waters:
        atoms.positions += 1.0
        atoms.info["charge"] = 3
        label_of(waters[0]).forces[:] = 0.0
    waters[0].calc.results["forces"][:] = 7.0
    assert plain(waters) == before


def test_a_data_set_does_not_see_what_is_done_to_its_structures_afterwards() -> None:
    given = [labelled(molecule("H2O"))]
    data = psiflow.Dataset(given)
    before = plain(data)
    given[0].positions += 1.0
    assert plain(data) == before


def test_data_sets_are_concatenated(waters: psiflow.Dataset) -> None:
    both = waters[:2] + dataset_of(*odd_entries())
    assert plain(both) == plain(waters)[:2] + [entry.to_plain() for entry in odd_entries()]
    assert len(waters) == 10
    with pytest.raises(TypeError):
        waters + list(waters)  # type: ignore[operator]


def test_a_filter_asks_each_structure(waters: psiflow.Dataset) -> None:
    middle = np.median(waters.energies)
    low = waters.filter(lambda atoms: atoms.get_potential_energy() < middle)
    assert len(low) == 5
    assert max(low.energies) < middle
    assert all(one.reference == TOY for one in low.provenance)


def test_a_data_set_goes_to_other_processes(waters: psiflow.Dataset, tmp_path: Path) -> None:
    loaded = psiflow.Dataset.load(waters.save(tmp_path / "data.xyz"))
    assert plain(pickle.loads(pickle.dumps(loaded))) == plain(waters)


# Labels and failures ---------------------------------------------------------------------------------------


def test_labelled_unlabelled_and_failed_structures_are_told_apart() -> None:
    data = dataset_of(*odd_entries())
    assert (len(data.labelled), len(data.unlabelled)) == (4, 2)
    (failed,) = data.failures
    assert (failed.number, failed.failure.reason) == (4, "unconverged")
    assert str(failed) == 'structure 4 (CH4): unconverged: SCF "diverged"\nafter é 50 = cycles'
    with pytest.raises(StructureError, match="CH4 has no label"):
        _ = data.energies


def test_an_entry_has_a_label_or_a_failure() -> None:
    with pytest.raises(StructureError, match=r"has both a label and a failure \(memory\)"):
        Entry(labelled(molecule("H2O")), failure=Failure("memory", "it took too much"))


def test_structures_that_are_given_say_which_label_is_meant() -> None:
    water = molecule("H2O")
    water.info["REF_energy"], water.arrays["REF_forces"] = -76.0, np.zeros((3, 3))
    with pytest.raises(StructureError, match=r"structure 1 \(H2O\).*load\(path, energy='REF_energy', forces="):
        psiflow.Dataset([molecule("CH4"), water])


def test_provenances_are_as_many_as_structures() -> None:
    with pytest.raises(StructureError, match="1 provenances for 2 structures"):
        psiflow.Dataset([molecule("H2O")] * 2, [Provenance()])


def test_statistics_count_what_there_is() -> None:
    found = dataset_of(*odd_entries()).statistics()
    assert found.structures == 6
    assert found.statuses == {"labelled": 4, "failed: unconverged": 1, "unlabelled": 1}
    assert found.origins == {"walker": 2, "unknown": 3, "bootstrap": 1}
    assert found.charges == {-1: 1, 0: 4, 1: 1}
    assert found.atoms is not None
    assert (found.atoms.smallest, found.atoms.largest) == (1, 5)
    table = str(found)
    assert "1 × failed: unconverged" in table
    assert "energy [eV/atom]" in table
    assert str(psiflow.Dataset().statistics()) == "0 structures"


# Files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.xyz", "data.extxyz", "data.db"])
def test_a_file_keeps_every_bit_and_all_that_is_known(name: str, tmp_path: Path) -> None:
    data = dataset_of(*odd_entries())
    loaded = psiflow.Dataset.load(data.save(tmp_path / name))
    assert plain(loaded) == [entry.to_plain() for entry in odd_entries()]
    again = psiflow.Dataset.load((loaded + loaded).save(tmp_path / f"again-{name}"))
    assert plain(again) == 2 * plain(loaded)


@pytest.mark.parametrize("name", ["data.xyz", "data.db"])
def test_fixed_atoms_and_their_forces_are_kept(name: str, tmp_path: Path) -> None:
    data = psiflow.Dataset.load(dataset_of(*odd_entries()).save(tmp_path / name))
    (constraint,) = data[0].constraints
    assert constraint.index.tolist() == [0, 2]
    assert np.array_equal(label_of(data[0]).forces, label_of(odd_entries()[0].structure).forces)


@pytest.mark.parametrize("name", ["data.xyz", "data.db"])
def test_other_programs_read_structures_and_labels(waters: psiflow.Dataset, name: str, tmp_path: Path) -> None:
    found = ase.io.read(waters.save(tmp_path / name), ":")
    assert [atoms.get_potential_energy() for atoms in found] == waters.energies.tolist()
    assert all(np.array_equal(one.positions, other.positions) for one, other in zip(found, waters, strict=True))


def test_facts_are_there_for_other_programs(tmp_path: Path) -> None:
    (atoms,) = ase.io.read(dataset_of(odd_entries()[0]).save(tmp_path / "data.xyz"), ":")
    assert (atoms.info["psiflow_origin"], atoms.info["psiflow_walker"]) == ("walker", 3)


@pytest.mark.parametrize("how", ["energy", "positions", "cut"])
def test_a_structure_that_was_changed_after_psiflow_wrote_it_is_refused(
    waters: psiflow.Dataset, how: str, tmp_path: Path
) -> None:
    file = waters.save(tmp_path / "data.xyz")
    first, second = ase.io.read(file, ":2")
    if how == "energy":
        second.calc.results["energy"] += 1e-3
    elif how == "positions":
        second.positions[0] += 1e-6
        second.calc.atoms = second.copy()
    else:
        second.info["psiflow_entry"].pop("provenance")
    ase.io.write(file, [first, second])
    with pytest.raises(StructureError, match="was changed after psiflow exported it"):
        _ = list(psiflow.Dataset.load(file))


def test_a_file_of_another_kind_is_not_written(waters: psiflow.Dataset, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=r"should end in \.xyz, \.extxyz or \.db"):
        waters.save(tmp_path / "data.traj")
    with pytest.raises(StructureError, match="no structure to write"):
        psiflow.Dataset().save(tmp_path / "data.xyz")
    (tmp_path / "file").write_text("")
    with pytest.raises(CampaignError):
        waters.save(tmp_path / "file" / "data.xyz")


@pytest.mark.parametrize("name", ["data.xyz", "data.db"])
def test_a_data_set_is_written_over_its_own_file(waters: psiflow.Dataset, name: str, tmp_path: Path) -> None:
    loaded = psiflow.Dataset.load(waters.save(tmp_path / name))
    loaded[:3].save(tmp_path / name)
    assert plain(psiflow.Dataset.load(tmp_path / name)) == plain(waters)[:3]
    with pytest.raises(StructureError, match="has changed since it was opened; load it again"):
        loaded[0]


@pytest.mark.parametrize(("part", "numbers"), [("@-1", [9]), ("@0", [0]), ("@2:8:3", [2, 5]), ("@:2", [0, 1])])
@pytest.mark.parametrize("name", ["data.xyz", "data.db"])
def test_a_selection_of_a_file_is_loaded(
    waters: psiflow.Dataset, name: str, part: str, numbers: list[int], tmp_path: Path
) -> None:
    file = waters.save(tmp_path / name)
    assert plain(psiflow.Dataset.load(f"{file}{part}")) == [plain(waters)[number] for number in numbers]


def test_labels_of_a_store_are_read_when_they_are_asked_for(waters: psiflow.Dataset, tmp_path: Path) -> None:
    files = [label_file(tmp_path, TOY, atoms) for atoms in waters]
    for file, atoms in zip(files, waters, strict=True):
        write_label(file, {"structure": to_plain(atoms), "reference": TOY.to_plain(), "seconds": 0.5})
    data = psiflow.Dataset.of(StoredLabel(file, Provenance(origin="walker")) for file in files)
    assert [one.reference for one in data.provenance] == [TOY] * 10
    assert [one.origin for one in data.provenance] == ["walker"] * 10
    assert data.energies.tolist() == waters.energies.tolist()
    files[3].unlink()
    assert label_of(data[2]).energy == waters.energies[2]
    with pytest.raises(LabelCorrupt):
        data[3]


def test_exported_labels_are_a_data_set(waters: psiflow.Dataset, tmp_path: Path) -> None:
    for atoms in waters:
        record = {"structure": to_plain(atoms), "reference": TOY.to_plain(), "seconds": 0.5}
        write_label(label_file(tmp_path / "store", TOY, atoms), record)
    export_labels(label_files(tmp_path / "store"), tmp_path / "labels.xyz")
    data = psiflow.Dataset.load(tmp_path / "labels.xyz")
    assert sorted(data.energies) == sorted(waters.energies)
    assert all(one.reference == TOY and one.extra == {"seconds": 0.5} for one in data.provenance)


def test_a_data_set_is_imported_into_a_store_with_its_own_references(waters: psiflow.Dataset, tmp_path: Path) -> None:
    put(import_labels(waters.save(tmp_path / "data.xyz")), tmp_path / "store")
    again = psiflow.Dataset.of(StoredLabel(file) for file in label_files(tmp_path / "store"))
    assert sorted(again.energies) == sorted(waters.energies)
    assert all(one.reference == TOY for one in again.provenance)
    of_others = psiflow.Dataset(list(waters)).save(tmp_path / "others.xyz")
    with pytest.raises(StructureError, match="give the reference that computed it"):
        import_labels(of_others)
    assert len(import_labels(of_others, TOY)) == len(waters)


# Lazy ------------------------------------------------------------------------------------------------------


def test_a_large_file_is_parsed_no_further_than_it_is_asked_for(
    waters: psiflow.Dataset, parsed: list[int], tmp_path: Path
) -> None:
    ase.io.write(tmp_path / "md.xyz", list(waters) * 50)
    data = psiflow.Dataset.load(tmp_path / "md.xyz")
    assert len(data) == 500
    assert len(parsed) == 1, "the first one shows whether there are labels"
    _ = data[321]
    assert len((data + data)[::3]) == 334
    assert len(parsed) == 2
    assert len(list(data[7:10])) == 3
    assert len(parsed) == 5


def test_frames_of_any_length_are_found(tmp_path: Path) -> None:
    structures = [molecule(name) for name in ("H2O", "C6H6", "H", "CH4", "H2")]
    ase.io.write(tmp_path / "some.xyz", structures)
    (tmp_path / "more.xyz").write_text((tmp_path / "some.xyz").read_text() + "\n\n")
    for name in ("some.xyz", "more.xyz"):
        assert [len(atoms) for atoms in psiflow.Dataset.load(tmp_path / name)] == [3, 12, 1, 5, 2]


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    text = "".join(f"3\r\nstep={n}\r\nO 0 0 0\r\nH 0 0 1\r\nH 0 1 0\r\n" for n in range(3))
    (tmp_path / "dos.xyz").write_bytes(text.encode())
    assert [atoms.info["step"] for atoms in psiflow.Dataset.load(tmp_path / "dos.xyz")] == [0, 1, 2]


def test_a_frame_that_cannot_be_read_is_told_with_its_file(waters: psiflow.Dataset, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "md.xyz", list(waters))
    (tmp_path / "md.xyz").write_text((tmp_path / "md.xyz").read_text()[:-40])
    data = psiflow.Dataset.load(tmp_path / "md.xyz")
    assert data[8] is not None
    with pytest.raises(StructureError, match=r"cannot read structures from .*md\.xyz"):
        data[9]


# Parts -----------------------------------------------------------------------------------------------------


def test_a_split_takes_every_structure_once(waters: psiflow.Dataset) -> None:
    parts = waters.split(0.5, 0.3, 0.2, seed=4)
    assert [len(part) for part in parts] == [5, 3, 2]
    assert sorted(np.concatenate([part.energies for part in parts])) == sorted(waters.energies)
    assert [len(part) for part in waters.split(9, 1)] == [9, 1]


def test_a_split_depends_on_seed_and_content_and_not_on_the_order(waters: psiflow.Dataset) -> None:
    parts = [sorted(part.energies) for part in waters.split(0.5, 0.5, seed=4)]
    shuffled = waters[np.random.default_rng(1).permutation(10)]
    assert [sorted(part.energies) for part in shuffled.split(0.5, 0.5, seed=4)] == parts
    assert [sorted(part.energies) for part in waters.split(0.5, 0.5, seed=5)] != parts


@pytest.mark.parametrize("sizes", [(0.5, 0.4), (5, 4), (), (1.5, -0.5)])
def test_a_split_that_leaves_something_out_is_refused(waters: psiflow.Dataset, sizes: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="do not split 10 structures"):
        waters.split(*sizes)


# What a campaign is given -----------------------------------------------------------------------------------------


def test_a_mapping_needs_energy_and_forces(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="give both names"):
        psiflow.Dataset.load(tmp_path / "data.xyz", energy="REF_energy")


def test_a_campaign_takes_a_data_set_for_its_structures(waters: psiflow.Dataset) -> None:
    assert all(given == atoms for given, atoms in zip(structures(waters, "data"), waters, strict=True))
    assert [label_of(atoms).energy for atoms in structures(waters, "data")] == waters.energies.tolist()
    assert not any(atoms.calc for atoms in structures(waters, "start"))
    assert len(structures(waters[:3], "test")) == 3


def test_data_that_lack_labels_are_refused_with_the_way_out(waters: psiflow.Dataset) -> None:
    data = waters + dataset_of(*odd_entries())
    with pytest.raises(StructureError, match=r"data: 2 of 16 structures have no label; give data\.labelled"):
        structures(data, "data")
    assert len(structures(data.labelled, "data")) == 14


def test_the_file_of_a_data_set_is_read_as_the_data_set(waters: psiflow.Dataset, tmp_path: Path) -> None:
    (one,) = structures(waters[:1].save(tmp_path / "data.xyz"), "data")
    assert set(one.info) == set(waters[0].info)


def test_a_constraint_that_cannot_be_kept_is_refused_by_name(tmp_path: Path) -> None:
    water = molecule("H2O")
    water.set_constraint(FixBondLength(0, 1))
    with pytest.raises(StructureError, match=r"^structure 0 \(H2O\): it has unsupported constraints \(FixBondLength"):
        psiflow.Dataset([water])
    ase.io.write(tmp_path / "water.db", water)
    with pytest.raises(StructureError, match=r"water\.db.*FixBondLength"):
        psiflow.Dataset.load(tmp_path / "water.db")


def test_a_data_set_of_a_relative_path_stays_readable_elsewhere(
    tmp_path: Path, waters: psiflow.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    waters.save(tmp_path / "a.xyz")
    monkeypatch.chdir(tmp_path)
    data = psiflow.Dataset.load("a.xyz")
    monkeypatch.chdir("/")
    assert data[0] == waters[0]
    (tmp_path / "a.xyz").unlink()
    with pytest.raises(StructureError, match="is gone since it was opened"):
        data[0]


@pytest.mark.parametrize("suffix", ["xyz", "db"])
def test_names_are_looked_for_in_files_of_psiflow_too(tmp_path: Path, waters: psiflow.Dataset, suffix: str) -> None:
    file = waters.save(tmp_path / f"a.{suffix}")
    with pytest.raises(StructureError, match="nope"):
        psiflow.Dataset.load(file, energy="nope", forces="nope2")[0]
