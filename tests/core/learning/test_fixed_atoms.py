"""Campaigns of a slab whose lower layers are fixed: labels by EMT, walkers by ASE, the toy potential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from psiflow_toys.campaigns import learning, run

import psiflow_core as psiflow
from psiflow_core.constraints import fix, fixed_atoms, unconstrained
from psiflow_core.errors import CampaignError, StructureError
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.perform import perform
from psiflow_core.execution.tasks.sample import read_walker
from psiflow_core.labels.extxyz import export_labels, import_labels, label_files, put
from psiflow_core.labels.given import structures
from psiflow_core.labels.store import label_file, read_label
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.online import Result
from psiflow_core.potentials.trained import ModelFile
from psiflow_core.structures import digest, label_of


def slab() -> Atoms:
    """Two layers of copper under an oxygen atom, the lower one fixed, and off its place: there is a force on it."""
    copper = fcc111("Cu", (1, 1, 2), vacuum=5.0, orthogonal=False) * (2, 1, 1)
    add_adsorbate(copper, "O", 1.2, position=(1.3, 0.7))
    copper.info.clear()
    copper.rattle(0.1, seed=1)
    fix(copper, np.flatnonzero(copper.positions[:, 2] < copper.positions[:, 2].mean() - 0.5))
    assert fixed_atoms(copper).sum() == 2
    return copper


def asked(**settings: Any) -> psiflow.OnlineLearning:
    given: dict[str, Any] = {"reference": psiflow.reference("ase", calculator="emt"), "walkers": 2}
    return learning(6, **{**given, **settings})


@pytest.fixture(scope="module")
def finished(workers: Context, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A campaign that has come to its end; to be looked at only."""
    return run(tmp_path_factory.mktemp("slab") / "c", workers, asked(), start=slab(), test=[slab()])


def test_bootstrap_and_walkers_leave_fixed_atoms_where_they_are(finished: Result) -> None:
    start = slab()
    fixed = fixed_atoms(start)
    origins = [one.origin for one in finished.dataset.provenance]
    assert set(origins) == {"bootstrap", "walker", "test"}
    seen = [atoms for atoms, origin in zip(finished.dataset, origins, strict=True) if origin != "test"]
    for atoms in seen:
        assert np.allclose(atoms.positions[fixed], start.positions[fixed], rtol=0, atol=1e-7)  # digits of the file
        assert (np.abs(atoms.positions - start.positions).max(axis=1)[~fixed] > 1e-4).all()
        assert np.array_equal(atoms.cell, start.cell)
    for walker in read_campaign(finished.folder).state.walkers:
        if not walker.file:  # it was set back to its start
            continue
        written = read_walker(ModelFile(finished.folder / walker.file, walker.digest)).structure
        assert np.array_equal(written.positions[fixed], start.positions[fixed])
        assert np.array_equal(fixed_atoms(written), fixed)
        assert not written.get_momenta()[fixed].any()


def test_the_data_set_keeps_fixed_atoms_and_the_forces_on_them(finished: Result, tmp_path: Path) -> None:
    fixed = fixed_atoms(slab())
    again = structures(finished.folder / "dataset.xyz", "data")
    for atoms in (*finished.dataset, *again):
        assert np.array_equal(fixed_atoms(atoms), fixed)
        free = unconstrained(atoms)
        free.calc = EMT()
        assert label_of(atoms).forces == pytest.approx(free.get_forces(), abs=1e-5)
        assert (np.abs(label_of(atoms).forces[fixed]).max(axis=1) > 0.01).all()


def test_labels_keep_fixed_atoms_on_their_way(finished: Result, tmp_path: Path) -> None:
    """From the store to extended XYZ, to another store, and back."""
    files = [file for file in label_files(finished.folder / "labels") if "fixed" in file.read_text()]
    assert export_labels(files, tmp_path / "labels.xyz").put == len(files) > 6
    for atoms in ase.io.read(tmp_path / "labels.xyz", ":"):
        assert np.array_equal(fixed_atoms(atoms), fixed_atoms(slab()))
    moved = put(import_labels(tmp_path / "labels.xyz"), tmp_path / "store")
    assert (moved.put, moved.problems) == (len(files), [])
    assert [read_label(file)[1] for file in label_files(tmp_path / "store")] == [read_label(file)[1] for file in files]


def test_a_label_is_found_whether_or_not_atoms_are_fixed(workers: Context, tmp_path: Path) -> None:
    """A store has the test structure's label with no atom fixed; the data set has it with those of the campaign."""
    store, reference = tmp_path / "labels", asked().reference
    free = LabelRequest(reference=reference, structure=unconstrained(slab()), labels=store, folder=tmp_path / "task")
    assert not perform("label", free.to_plain(), {})["value"]["cached"]
    before = label_file(store, reference, slab()).read_bytes()
    result = run(tmp_path / "held", workers, asked(), start=slab(), test=[slab()], labels=store)
    assert label_file(store, reference, slab()).read_bytes() == before
    assert not label_file(result.folder / "labels", reference, slab()).exists()
    assert digest(slab()) in [digest(atoms) for atoms in result.dataset]
    for atoms in result.dataset:
        assert np.array_equal(fixed_atoms(atoms), fixed_atoms(slab()))


def test_a_campaign_does_not_go_on_with_other_atoms_fixed(finished: Result) -> None:
    other = slab()
    other.set_constraint(FixAtoms([0]))
    with pytest.raises(CampaignError, match="with other positions, cell, charge, spin or fixed atoms"):
        run(finished.folder, None, asked(), start=other, test=[slab()])


def test_other_constraints_are_refused_by_name_before_anything_starts(tmp_path: Path) -> None:
    tied = slab()
    tied.set_constraint([*tied.constraints, FixBondLength(0, 4)])
    for given in ({"start": tied}, {"start": slab(), "test": [tied]}):
        with pytest.raises(StructureError, match=r"unsupported constraints \(FixBondLengths\): only FixAtoms is"):
            run(tmp_path / "c", None, asked(), **given)
    with pytest.raises(StructureError, match="FixBondLengths"):
        psiflow.sample(EMT(), psiflow.sampler("ase"), tied, 5)
    assert not (tmp_path / "c").exists()


def test_trajectories_of_a_calculator_keep_fixed_atoms(tmp_path: Path) -> None:
    start, fixed = slab(), fixed_atoms(slab())
    (walked,) = psiflow.sample(EMT(), psiflow.sampler("ase", temperature=500.0), start, 20, stride=10)
    (relaxed,) = psiflow.sample(EMT(), psiflow.sampler("ase", ensemble="optimise", fmax=0.02), walked, 300)
    for atoms in (*walked.frames, walked.structure, relaxed.structure):
        assert np.array_equal(atoms.positions[fixed], start.positions[fixed])
    assert relaxed.segment.finished
    end = relaxed.structure.copy()
    end.calc = EMT()
    forces = np.linalg.norm(end.get_forces(apply_constraint=False), axis=1)
    assert forces[~fixed].max() <= 0.02 < forces[fixed].max()
    ase.io.write(tmp_path / "frames.xyz", walked.frames)
    assert fixed_atoms(ase.io.read(tmp_path / "frames.xyz")).sum() == 2
