"""Model files: plain, exact, portable to MACE's own tools and back."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms

from psiflow_core.components import Predictor, TrainingResult
from psiflow_core.errors import ModelCorrupt, OptionError, TrainingFailed
from psiflow_core.structures import Label, label_of, with_label

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def exported(small: Make, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "emt.model"
    small().export(model, target)
    return target


LOAD = """
import sys
from psiflow_core.registry import plugins
plugins.registry().find("potential", "mace").component.parse({}).load(sys.argv[1])
"""


def test_loading_a_model_prints_nothing(model: Path) -> None:
    command = [sys.executable, "-c", LOAD, str(model)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == process.stderr == ""


def test_a_file_that_is_no_model_is_refused(small: Make, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "rubbish.pt").write_bytes(b"rubbish")
    for path in (tmp_path / "rubbish.pt", tmp_path / "missing.pt", exported):
        with pytest.raises(ModelCorrupt, match="is not a model of potential 'mace'"):
            small().load(path)


def test_single_precision_is_close_to_double(small: Make, task: Make, model: Path, validation: list[Atoms]) -> None:
    import torch

    held = torch.load(model, weights_only=True)
    held["dtype"] = "float32"
    held["weights"] = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in held["weights"].items()
    }
    single = Path(task().folder) / "single.pt"
    torch.save(held, single)
    exact, rounded = (small().load(path).predict(validation) for path in (model, single))
    for one, other in zip(exact, rounded, strict=True):
        assert other.forces.dtype == np.float64
        np.testing.assert_allclose(other.forces, one.forces, atol=2e-4)
        assert other.energy == pytest.approx(one.energy, abs=2e-5)


def test_an_exported_model_says_the_same_in_maces_own_calculator(
    exported: Path, predictor: Predictor, validation: list[Atoms]
) -> None:
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(exported), device="cpu", default_dtype="float64")
    for atoms, here in zip(validation, predictor.predict(validation), strict=True):
        atoms = atoms.copy()
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(here.energy, abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), here.forces, atol=1e-9)
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), here.stress, atol=1e-10)


# Foundation models -----------------------------------------------------------------------------------------


@pytest.fixture
def unmoved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a foundation model as they are, whatever the seed."""
    monkeypatch.setattr("psiflow_mace._foundation.NOISE", 0.0)


@pytest.mark.usefixtures("unmoved")
def test_a_foundation_model_is_fine_tuned_from_its_own_error(
    small: Make, task: Make, exported: Path, trained: TrainingResult
) -> None:
    potential = small(foundation_model=str(exported))
    tuned = potential.train(task(steps=1))
    assert tuned.errors["force_rmse"] == pytest.approx(trained.errors["force_rmse"], rel=0.02)
    child = potential.train(task(steps=1, parent=tuned.model))
    assert child.errors["force_rmse"] == pytest.approx(trained.errors["force_rmse"], rel=0.02)


def test_members_that_start_from_a_foundation_model_differ_by_their_seed(
    small: Make, task: Make, exported: Path, training: list[Atoms], validation: list[Atoms], trained: TrainingResult
) -> None:
    """Though each step sees all the data, so that no order of batches tells the members apart."""
    potential = small(foundation_model=str(exported), batch_size=8)
    members = [potential.train(task(training=training[:8], steps=30, seed=seed)) for seed in (1, 2)]
    one, two = (
        np.concatenate([said.forces for said in potential.load(member.model).predict(validation)]) for member in members
    )
    error = trained.errors["force_rmse"]
    assert error / 50 < np.sqrt(np.mean((one - two) ** 2)) < 3 * error
    for member in members:
        assert member.errors["force_rmse"] < 1.5 * error


@pytest.mark.usefixtures("unmoved")
def test_a_foundation_model_keeps_only_the_species_that_are_needed(
    small: Make, task: Make, exported: Path, predictor: Predictor, atomic_energies: dict[str, float]
) -> None:
    """A copper model cut out of a copper-aluminium model says of copper what the whole one says."""
    dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])
    labelled = with_label(dimer, Label(predictor.predict([dimer])[0].energy, np.zeros((2, 3))))
    potential = small(foundation_model=str(exported), warm_learning_rate=1e-12)
    copper = potential.train(
        task(training=[labelled], validation=[], steps=1, atomic_energies={"Cu": atomic_energies["Cu"]})
    )
    whole, part = predictor.predict([dimer])[0], potential.load(copper.model).predict([dimer])[0]
    assert part.energy == pytest.approx(whole.energy, abs=1e-6)
    np.testing.assert_allclose(part.forces, whole.forces, atol=1e-6)


def test_a_foundation_model_and_a_model_from_scratch_are_not_each_others_parents(
    small: Make, task: Make, exported: Path, model: Path
) -> None:
    with pytest.raises(TrainingFailed, match="another architecture"):
        small(foundation_model=str(exported)).train(task(parent=model, steps=1))


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_file_that_took_the_place_of_a_foundation_model_is_not_opened(
    small: Make, task: Make, exported: Path, tmp_path: Path
) -> None:
    file, mark = tmp_path / "some.model", tmp_path / "opened"
    file.write_bytes(exported.read_bytes())
    potential = small(foundation_model=str(file))
    file.write_bytes(pickle.dumps(Trap(mark)))
    for ask in (lambda: potential.check([Atoms("Cu")]), lambda: potential.train(task(steps=1))):
        with pytest.raises(OptionError, match=f"does not have the SHA-256 {potential.foundation_digest}"):
            ask()
    assert not mark.exists()
    file.unlink()
    with pytest.raises(OptionError, match="cannot be read here: No such file"):
        potential.check([Atoms("Cu")])


def test_a_parent_comes_from_the_very_same_foundation_model(
    small: Make, task: Make, exported: Path, tmp_path: Path
) -> None:
    """Another file of the same name is another foundation model; a copy of it is the same one."""
    parent = small(foundation_model=str(exported)).train(task(steps=1))
    (tmp_path / "copy.model").write_bytes(exported.read_bytes())
    small(foundation_model=str(tmp_path / "copy.model")).train(task(steps=1, parent=parent.model))
    (tmp_path / exported.name).write_bytes(b"another")
    with pytest.raises(TrainingFailed, match="foundation_digest="):
        small(foundation_model=str(tmp_path / exported.name)).train(task(steps=1, parent=parent.model))


def test_a_foundation_model_that_cannot_serve_is_refused_before_training(
    small: Make, exported: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "rubbish.model").write_bytes(b"rubbish")
    with pytest.raises(OptionError, match="cannot be read as a MACE model"):
        small(foundation_model=str(tmp_path / "rubbish.model")).check([Atoms("Cu")])
    with pytest.raises(OptionError, match="holds a dict, not a ScaleShiftMACE"):
        small(foundation_model=str(model)).check([Atoms("Cu")])
    with pytest.raises(OptionError, match="knows Al, Cu, and not Au"):
        small(foundation_model=str(exported)).check([Atoms("Au")])
    small(foundation_model=str(exported)).check([Atoms("CuAl")])


# Foundation models whose atomic energies are averages ------------------------------------------------------


@pytest.fixture(scope="module")
def averaged(training: list[Atoms], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of MACE's own program that knows averages over compounds instead of free atoms."""
    folder = tmp_path_factory.mktemp("averaged")
    told = [atoms.copy() for atoms in training]
    for copied, label in zip(told, map(label_of, training), strict=True):
        copied.info["REF_energy"], copied.arrays["REF_forces"] = label.energy, label.forces
    ase.io.write(folder / "train.xyz", told, format="extxyz")
    words = ["--E0s=average", "--model=ScaleShiftMACE", "--ema", "--default_dtype=float64", "--plot=False"]
    words += ["--name=emt", "--train_file=train.xyz", "--valid_fraction=0.1", "--max_num_epochs=8", "--seed=1"]
    words += ["--r_max=4.5", "--num_channels=8", "--max_L=0", "--max_ell=1", "--batch_size=4", "--lr=0.03"]
    words += ["--energy_key=REF_energy", "--forces_key=REF_forces", "--energy_weight=10", "--forces_weight=100"]
    command = [sys.executable, "-W", "ignore", "-m", "mace.cli.run_train", *words]
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return folder / "emt.model"


def test_average_atomic_energies_of_a_foundation_model_do_not_spoil_its_start(
    small: Make, task: Make, averaged: Path, training: list[Atoms], atomic_energies: dict[str, float]
) -> None:
    """The file is good for the labels; with the free atoms' energies in the place of its averages it is not."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(averaged), device="cpu", default_dtype="float64")
    own = np.array([energy_per_atom(atoms, calculator) - label_of(atoms).energy / len(atoms) for atoms in training])
    free = np.array([atomic_energies[symbol] for symbol in ("Al", "Cu")])
    averages = calculator.models[0].atomic_energies_fn.atomic_energies.numpy().ravel()
    assert np.abs(free - averages).min() > 4 * rms(own)

    tuned = small(foundation_model=str(averaged)).train(task(steps=1))
    start = tuned.history[0]
    assert start["step"] == 0
    assert start["energy_rmse"] < 1.5 * rms(own)


def test_a_foundation_model_that_no_shift_brings_to_the_labels_is_refused_with_its_error(
    small: Make, task: Make, exported: Path, training: list[Atoms]
) -> None:
    """Labels of two references, 10 eV/atom apart."""
    mixed = []
    for number, atoms in enumerate(training):
        label, shift = label_of(atoms), 10.0 * len(atoms) * (number // 2 % 2)
        mixed.append(with_label(atoms, Label(label.energy + shift, label.forces)))
    with pytest.raises(OptionError, match=r"emt.model' starts 5\.\d+ eV/atom from the labels .*choose another file"):
        small(foundation_model=str(exported)).train(task(training=mixed, steps=1))


def energy_per_atom(atoms: Atoms, calculator: Any) -> float:
    asked = atoms.copy()
    asked.calc = calculator
    return float(asked.get_potential_energy()) / len(asked)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
