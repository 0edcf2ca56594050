"""Weights on disk: what is loaded is what was recorded."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from psiflow_toys.potential import ToyPotential
from psiflow_toys.reference import ToyReference

import psiflow_core as psiflow
from psiflow_core.components import LabelTask, TrainingTask
from psiflow_core.errors import ModelCorrupt
from psiflow_core.files import copy_atomically, file_digest, write_atomically
from psiflow_core.potentials import trained as models
from psiflow_core.potentials.trained import Member, ModelFile, TrainedPotential, load_members
from psiflow_core.structures import displaced, with_label


@pytest.fixture
def trained(tmp_path: Path) -> TrainedPotential:
    """A committee of two that learned water from the toy reference."""
    random = np.random.default_rng(0)
    structures = [displaced(molecule("H2O"), 0.1, 0.0, random) for _ in range(6)]
    labelled = [with_label(atoms, ToyReference().label(atoms, LabelTask(tmp_path))) for atoms in structures]
    files = []
    for seed in range(2):
        task = TrainingTask(labelled, [], {"H": -1.0, "O": -8.0}, seed, tmp_path / f"training-{seed}")
        model = ToyPotential(basis=6).train(task).model
        files.append(Member(psiflow.potential("toy", basis=6), ModelFile(model, file_digest(model))))
    return TrainedPotential(files)


def test_a_saved_potential_is_the_same_in_another_folder(trained: TrainedPotential, tmp_path: Path) -> None:
    trained.save(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    here, there = (
        potential.predict([molecule("H2O")])[0] for potential in (trained, TrainedPotential.load(tmp_path / "moved"))
    )
    assert there.energy == here.energy
    np.testing.assert_array_equal(there.forces, here.forces)
    np.testing.assert_array_equal(there.deviation, here.deviation)


def test_a_saved_potential_is_the_same_in_another_process(trained: TrainedPotential, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "saved")
    script = (
        "import sys, psiflow_core as psiflow; from ase.build import molecule\n"
        "potential = psiflow.TrainedPotential.load(sys.argv[1])\n"
        "print(repr(potential.predict([molecule('H2O')])[0].energy))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert float(told.stdout) == trained.predict([molecule("H2O")])[0].energy


def test_saving_where_it_was_loaded_from_changes_nothing(trained: TrainedPotential, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "saved")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    TrainedPotential.load(folder).save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_truncated_model_is_refused_by_its_name(trained: TrainedPotential, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "saved")
    victim = folder / "member-1.json"
    os.truncate(victim, victim.stat().st_size // 2)
    with pytest.raises(ModelCorrupt, match=r"member-1\.json has changed since it was recorded"):
        TrainedPotential.load(folder)


def test_swapped_members_are_refused(trained: TrainedPotential, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "saved")
    first, second = (folder / f"member-{number}.json" for number in range(2))
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    with pytest.raises(ModelCorrupt, match=r"member-0\.json"):
        TrainedPotential.load(folder)


def test_a_model_that_changes_after_it_was_recorded_is_not_loaded(
    trained: TrainedPotential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_warm", models._Warm(limit=2))  # nothing is loaded yet, as in a new process
    file = trained.members[0].file
    file.path.write_text(file.path.read_text() + " ")
    with pytest.raises(ModelCorrupt, match="its hash differs"):
        load_members(trained.members[:1])


def test_missing_models_are_told_from_changed_ones(trained: TrainedPotential, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "saved")
    (folder / "member-0.json").unlink()
    with pytest.raises(ModelCorrupt, match=r"member-0\.json is missing"):
        TrainedPotential.load(folder)
    with pytest.raises(ModelCorrupt, match=r"there is no potential in .*nowhere"):
        TrainedPotential.load(tmp_path / "nowhere")


def test_a_potential_says_what_it_is(trained: TrainedPotential) -> None:
    count, (spec,) = len(trained.members), trained.potentials
    assert repr(trained) == f"<TrainedPotential: {count} members; toy of psiflow-toys {spec.version}>"


def test_loading_a_campaigns_folder_says_where_its_potential_is(trained: TrainedPotential, tmp_path: Path) -> None:
    trained.save(tmp_path / "potential")
    with pytest.raises(ModelCorrupt, match=f"there is no potential in {tmp_path}: .*; give {tmp_path / 'potential'}"):
        TrainedPotential.load(tmp_path)


def test_loaded_models_stay_warm_but_not_without_bound(
    trained: TrainedPotential, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = ToyPotential.load
    monkeypatch.setattr(ToyPotential, "load", lambda *given: loads.append(given[1]) or load(*given))
    warm = models._Warm(limit=2)
    first, second = trained.members
    copied = second.file.path.with_name("third.json")
    copied.write_text(second.file.path.read_text() + "\n")
    third = Member(second.potential, ModelFile(copied, file_digest(copied)))
    once = warm.get(first, "cpu")
    assert warm.get(first, "cpu") is once
    assert len(loads) == 1
    for member in (second, third, first):  # the third drives out the first, which was used least recently
        warm.get(member, "cpu")
    assert [path.name for path in loads] == [member.file.path.name for member in (first, second, third, first)]
    assert len(warm._loaded) == 2


def test_a_file_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "weights"
    write_atomically(target, b"old")

    def full_disk(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def written(target: Path) -> None:
    write_atomically(target, b"weights")


def copied(target: Path) -> None:
    source = target.parents[2] / "source"
    source.write_bytes(b"weights")
    copy_atomically(source, target)


@pytest.mark.parametrize("keep", [written, copied])
def test_a_file_that_is_seen_is_on_the_disk_and_so_is_its_name(
    keep: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models" / "ab" / "weights"
    synced: list[tuple[Path, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")), target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    keep(target)
    assert target.read_bytes() == b"weights"
    *made, (content, seen), name = synced
    assert made == [(tmp_path, False), (tmp_path / "models", False)]  # the names of folders that were not there
    assert content.parent == target.parent
    assert not seen  # the content is safe before anyone sees it
    assert name == (target.parent, True)


@pytest.mark.parametrize(("number", "refused"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_only_a_file_system_that_cannot_sync_folders_is_forgiven(
    number: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if refused:
        with pytest.raises(OSError, match="Input/output error"):
            write_atomically(tmp_path / "weights", b"new")
    else:
        write_atomically(tmp_path / "weights", b"new")
