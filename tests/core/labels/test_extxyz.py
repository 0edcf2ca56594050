"""Labels that move keep every bit, and where they came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from psiflow_toys.campaigns import moved_water

import psiflow_core as psiflow
from psiflow_core.cli import main
from psiflow_core.components import LabelTask
from psiflow_core.errors import StructureError
from psiflow_core.labels.extxyz import import_labels, label_files
from psiflow_core.labels.store import keep_given, label_file, read_label, write_label
from psiflow_core.learning.driver.folder import Store
from psiflow_core.registry.plugins import build
from psiflow_core.structures import Label, digest, from_plain, label_of, to_plain, with_label

TOY = psiflow.reference("toy", depth=1.1)


def record(structure: Atoms, label: Label | None = None, **more: Any) -> dict[str, Any]:
    found = label or build(TOY).label(structure, LabelTask(Path()))  # type: ignore[attr-defined]
    plain = {"structure": to_plain(with_label(structure, found)), "reference": TOY.to_plain(), "seconds": 1 / 3}
    return plain | more


def stored(folder: Path, *structures: Atoms, **more: Any) -> Path:
    """A store with the labels of these structures."""
    for structure in structures:
        write_label(label_file(folder, TOY, structure), record(structure, **more))
    return folder


def odd_structures() -> list[Atoms]:
    """What is easily lost on the way."""
    crystal = bulk("Fe", cubic=True)
    crystal.rattle(0.1, seed=3)
    crystal.arrays.pop("initial_magmoms")
    crystal.set_initial_magnetic_moments([[0.1, 1 / 3, 2.2], [0.0, -1e-17, 3.0]])
    crystal.set_initial_charges([0.1, 2 / 3 + 0.2])
    slab = bulk("Cu")
    slab.pbc = (True, False, True)
    slab.set_masses([64.9 + 1 / 7])
    crystal.set_constraint(FixAtoms([1]))
    water, boxed, atom = moved_water(1, seed=1)[0], molecule("H2O", vacuum=np.pi), Atoms("H")
    water.set_momenta(np.random.default_rng(2).normal(size=(3, 3)))
    water.info.update(
        charge=-1, spin=2, empty="", note='says "é = 1"\\\n and pbc 1 1', number="12", truth="T", **{"odd key": 1.5}
    )
    boxed.set_initial_charges([-2 / 3, 1 / 3, 1 / 3])
    boxed.info.update(energy="mine", stress=1.0, float=1e-300, yes=True)
    atom.positions[0] = (-0.0, 1e-12, 123456789.123456789)
    return [crystal, slab, water, boxed, atom]


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """`psiflow labels`, in this process: exit code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["labels", *map(str, words)])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def contents(store: Path) -> dict[str, bytes]:
    return {file.relative_to(store).as_posix(): file.read_bytes() for file in label_files(store)}


def records(store: Path) -> dict[str, Any]:
    return {name: json.loads(content) for name, content in contents(store).items()}


def test_labels_come_back_from_extended_xyz_exact_to_the_last_bit(command: Command, tmp_path: Path) -> None:
    store = stored(tmp_path / "store", *odd_structures(), *moved_water(3, seed=7))
    assert command("export", store, tmp_path / "all.xyz")[:2] == (0, f"8 labels in {tmp_path / 'all.xyz'}\n")
    assert command("import", tmp_path / "all.xyz", tmp_path / "back")[0] == 0
    assert records(tmp_path / "back") == records(store)
    code, said, _ = command("import", tmp_path / "all.xyz", tmp_path / "back")
    assert (code, said) == (0, f"0 labels put into {tmp_path / 'back'}; 8 labels existed already\n")


def test_ase_reads_structure_label_and_provenance(command: Command, tmp_path: Path) -> None:
    structures = odd_structures()
    command("export", stored(tmp_path / "store", *structures), tmp_path / "all.xyz")
    read = {digest(atoms): atoms for atoms in ase.io.read(tmp_path / "all.xyz", index=":")}
    for structure in structures:
        found, expected = (
            read[digest(structure)],
            label_of(read_label(label_file(tmp_path / "store", TOY, structure))[0]),
        )
        assert label_of(found).energy == expected.energy
        assert np.array_equal(label_of(found).forces, expected.forces)
        assert np.array_equal(found.cell, structure.cell)
        assert (found.get_stress() == expected.stress).all() if expected.stress is not None else True
        assert found.info["psiflow_reference"] == TOY.to_plain()
        assert found.info["psiflow_reference_digest"] == TOY.digest
        assert found.info["psiflow_plugin"] == f"{TOY.distribution} {TOY.version}"
        assert found.info["psiflow_seconds"] == 1 / 3
        assert found.info["psiflow_structure_hash"] == digest(structure)


def test_lattice_and_columns_come_before_anything_that_could_be_taken_for_them(
    tmp_path: Path, command: Command
) -> None:
    crystal = bulk("Cu")
    crystal.info["note"] = 'Lattice="1 0 0" Properties=none pbc 0 0 0'
    command("export", stored(tmp_path / "store", crystal), tmp_path / "all.xyz")
    comment = (tmp_path / "all.xyz").read_text().splitlines()[1]
    assert comment.startswith('Lattice="0.0 1.805')
    assert comment.index("Properties=species:S:1:pos:R:3:forces:R:3") < comment.index("note=")
    json_part = comment[comment.index("psiflow_reference=") :]
    assert "pbc 0" not in json_part
    assert json_part.count("=") == 2, "only names are followed by it"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("energy=", "energy=1"),
        ("psiflow_seconds=0.3", "psiflow_seconds=0.4"),
        ("charge=0", "charge=1"),
        ('\\"depth\\":1.1', '\\"depth\\":1.2'),
        ("psiflow_info=", "psiflow_imp="),
        ('psiflow_info="_JSON {', 'psiflow_info="_JSON ['),
    ],
)
def test_a_record_that_was_changed_is_refused_and_nothing_is_imported(
    before: str, after: str, command: Command, tmp_path: Path
) -> None:
    sound, other = moved_water(2, seed=7)
    for structure in (sound, other):
        structure.info.update(charge=0, spin=1)
    command("export", stored(tmp_path / "store", sound, other), tmp_path / "all.xyz")
    head, _, last = (tmp_path / "all.xyz").read_text().rpartition("\n3\n")
    assert before in last
    (tmp_path / "all.xyz").write_text(f"{head}\n3\n{last.replace(before, after)}")
    code, _, error = command("import", tmp_path / "all.xyz", tmp_path / "back")
    assert code == 1
    assert "all.xyz" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "back").exists()


def foreign(file: Path, *structures: Atoms) -> Path:
    labelled = [with_label(atoms, Label(-1.5 - n, np.zeros((3, 3)))) for n, atoms in enumerate(structures)]
    ase.io.write(file, labelled, format="extxyz")
    return file


def test_labels_of_others_become_those_of_the_reference_that_is_named(command: Command, tmp_path: Path) -> None:
    file = foreign(tmp_path / "theirs.xyz", *moved_water(2, seed=3))
    words = ("import", file, tmp_path / "store")
    assert "--reference" in command(*words)[2]
    assert command(*words, "--reference", "toy", "--option", "depth=1.1")[0] == 0
    first = ase.io.read(file, index=0)
    structure, found = read_label(label_file(tmp_path / "store", TOY, first))
    assert label_of(structure).energy == -1.5
    assert found["imported_from"] == f"{file.absolute()}, structure 0"
    assert found["seconds"] == 0.0


def test_where_a_label_was_imported_from_survives_the_next_move(command: Command, tmp_path: Path) -> None:
    file = foreign(tmp_path / "theirs.xyz", *moved_water(1, seed=3))
    command("import", file, tmp_path / "store", "--reference", "toy")
    command("export", tmp_path / "store", tmp_path / "all.xyz")
    command("import", tmp_path / "all.xyz", tmp_path / "back")
    assert records(tmp_path / "back") == records(tmp_path / "store")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--reference", "toi"], "Did you mean 'toy'?"),
        (["--reference", "toy", "--option", "depht=1"], "depht"),
        (["--reference", "toy", "--option", "depth"], "write key=value"),
        (["--option", "depth=1"], "--reference"),
    ],
)
def test_a_reference_that_cannot_be_is_one_line(
    words: list[str], complaint: str, command: Command, tmp_path: Path
) -> None:
    file = foreign(tmp_path / "theirs.xyz", *moved_water(1, seed=3))
    code, _, error = command("import", file, tmp_path / "store", *words)
    assert code == 1
    assert complaint in error
    assert error.count("\n") == 1


def test_labels_of_others_that_nothing_can_be_learned_from_are_refused(tmp_path: Path) -> None:
    (structure,) = moved_water(1, seed=3)
    structure.write(tmp_path / "bare.xyz")
    with pytest.raises(StructureError, match=r"bare.xyz, structure 0.*has no label"):
        import_labels(tmp_path / "bare.xyz", TOY)
    ase.io.write(tmp_path / "nan.xyz", with_label(structure, Label(np.nan, np.zeros((3, 3)))), format="extxyz")
    with pytest.raises(StructureError, match="not finite"):
        import_labels(tmp_path / "nan.xyz", TOY)


def test_merging_copies_what_is_missing(command: Command, tmp_path: Path) -> None:
    one, two, three = moved_water(3, seed=5)
    first, second = stored(tmp_path / "1", one, two), stored(tmp_path / "2", two, three)
    target = tmp_path / "target"
    assert command("merge", first, second, target)[:2] == (
        0,
        f"3 labels put into {target}; 1 label existed already\n",
    )
    assert contents(target) == {**contents(first), **contents(second)}


def test_labels_that_contradict_each_other_are_told_and_left_alone(command: Command, tmp_path: Path) -> None:
    one, two = moved_water(2, seed=5)
    target, other = stored(tmp_path / "target", one), stored(tmp_path / "other", two)
    write_label(label_file(other, TOY, one), record(one, Label(-7.25, np.zeros((3, 3)))))
    before = contents(target)
    code, said, _ = command("merge", other, target)
    assert code == 1
    assert f"H2O {digest(one)[:8]} by toy" in said
    assert "-7.25" in said
    assert "1 label put into" in said
    assert contents(target).items() >= before.items()


def test_labels_that_differ_by_the_noise_of_a_calculation_are_the_same(command: Command, tmp_path: Path) -> None:
    (one,) = moved_water(1, seed=5)
    target, other, stressed = stored(tmp_path / "target", one), tmp_path / "other", tmp_path / "stressed"
    found = label_of(read_label(label_file(target, TOY, one))[0])
    nearly = Label(found.energy + 1e-7, found.forces + 1e-7, found.stress)
    write_label(label_file(other, TOY, one), record(one, nearly))
    before = contents(target)
    code, said, _ = command("merge", other, target)
    assert (code, contents(target)) == (0, before)
    assert "1 label existed already" in said
    write_label(label_file(stressed, TOY, one), record(one, Label(found.energy, found.forces, np.ones(6))))
    assert command("merge", stressed, target)[0] == 1


def test_a_damaged_label_does_not_spread(command: Command, tmp_path: Path) -> None:
    one, two, three = moved_water(3, seed=5)
    source, target = stored(tmp_path / "source", one, two, three), stored(tmp_path / "target", two)
    label_file(source, TOY, one).write_text("{")
    label_file(target, TOY, two).write_text("")
    exchanged = label_file(source, TOY, three)
    write_label(exchanged, record(one))
    code, said, _ = command("merge", source, target)
    assert code == 1
    assert said.count("is damaged") == 2
    assert records(target).keys() == {label_file(target, TOY, two).relative_to(target).as_posix()}
    assert contents(target) == {name: contents(source)[name] for name in contents(target)}, "it was mended"
    code, said, _ = command("export", source, tmp_path / "all.xyz")
    assert code == 1
    assert said.count("is damaged") == 2
    assert "1 label in" in said


def test_what_came_as_data_has_no_reference_and_stays(command: Command, campaign: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(campaign, folder)
    journal = Store(folder).open_for_writing()
    (structure,) = moved_water(1, seed=9)
    file = keep_given(folder / "given", from_plain(record(structure)["structure"]))
    given = {"structure": digest(structure), "origin": "initial", "file": f"given/{file.name}"}
    journal.append("proposed", {"candidates": [given]})
    journal.close()
    said = command("export", folder, tmp_path / "all.xyz")[1]
    assert f"{len(label_files(campaign / 'labels'))} labels in" in said
    assert "1 label left out: they came as data" in said


def test_a_file_that_readers_would_not_know_or_that_cannot_be_written_is_one_line(
    command: Command, tmp_path: Path
) -> None:
    store = stored(tmp_path / "store", *moved_water(1, seed=5))
    (tmp_path / "file").write_text("")
    assert "should end in .xyz" in command("export", store, tmp_path / "labels.txt")[2]
    for words in (("export", store, tmp_path / "file" / "all.xyz"), ("merge", store, tmp_path / "file" / "store")):
        code, _, error = command(*words)
        assert code == 1
        assert error.startswith("error: cannot use")
        assert error.count("\n") == 1


def test_a_campaign_shows_its_labels_and_takes_none(command: Command, campaign: Path, tmp_path: Path) -> None:
    assert command("export", campaign, tmp_path / "all.xyz")[0] == 0
    assert command("import", tmp_path / "all.xyz", tmp_path / "store")[0] == 0
    assert records(tmp_path / "store") == records(campaign / "labels")
    assert command("merge", campaign, tmp_path / "merged")[0] == 0
    assert contents(tmp_path / "merged") == contents(campaign / "labels")
    code, _, error = command("merge", tmp_path / "store", campaign)
    assert code == 1
    assert f"give {campaign / 'labels'}" in error


@pytest.mark.parametrize("what", ["nowhere", "empty", "file"])
def test_where_no_labels_are_one_line_says_so(what: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    code, _, error = command("export", tmp_path / what, tmp_path / "all.xyz")
    assert code == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "all.xyz").exists()
