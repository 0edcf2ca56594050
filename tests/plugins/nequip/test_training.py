"""Training learns, can be killed, starts from parents, and fails in words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from psiflow_core.components import Potential, Resources, TrainingResult, TrainingTask
from psiflow_core.errors import ModelCorrupt, OptionError, TrainingFailed
from psiflow_core.structures import Label, to_plain, with_label

Make = Callable[..., Any]

TRAIN = """
import json, sys
from pathlib import Path
from psiflow_core.components import TrainingTask
from psiflow_core.structures import from_plain
from psiflow_core.registry.plugins import registry

plain = json.loads(Path(sys.argv[1]).read_text())
data = {key: [from_plain(atoms) for atoms in plain[key]] for key in ("training", "validation")}
task = TrainingTask(**data, atomic_energies=plain["energies"], seed=plain["seed"], folder=Path(sys.argv[2]))
print(registry().find("potential", plain["name"]).component.parse(plain["options"]).train(task).steps)
"""


def in_another_process(potential: Potential, task: TrainingTask, script: Path) -> subprocess.Popen[str]:
    plain = {
        "training": [to_plain(atoms) for atoms in task.training],
        "validation": [to_plain(atoms) for atoms in task.validation],
        "energies": task.atomic_energies,
        "seed": task.seed,
        "name": potential.name,
        "options": potential.options(),
    }
    script.write_text(json.dumps(plain))
    command = [sys.executable, "-c", TRAIN, str(script), str(task.folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_training_goes_on_to_the_very_same_model(small: Make, task: Make, tmp_path: Path) -> None:
    import torch

    potential = small(steps=60, learning_rate=0.01)
    unkilled = potential.train(task())
    attempt = task(folder=tmp_path / "attempt")
    with in_another_process(potential, attempt, tmp_path / "task.json") as process:
        while not (attempt.folder / "checkpoint.pt").exists():
            assert process.poll() is None, "the training ended before it left a checkpoint"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    reached = torch.load(attempt.folder / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < reached < 60
    assert not (attempt.folder / "model.pt").exists()
    resumed = potential.train(attempt)
    assert resumed.model.read_bytes() == unkilled.model.read_bytes()
    assert resumed.history == unkilled.history
    assert resumed.steps == 60


def test_the_checkpoint_of_another_task_is_not_gone_on_from(small: Make, task: Make) -> None:
    fresh = small(steps=20).train(task(seed=8))
    used = task(seed=7)
    small(steps=20).train(used)
    other = small(steps=20).train(task(seed=8, folder=used.folder))
    assert other.model.read_bytes() == fresh.model.read_bytes()


def test_a_damaged_checkpoint_counts_as_none(small: Make, task: Make) -> None:
    from psiflow_nequip import _training

    attempt = task()
    small(steps=1).train(attempt)
    checkpoint = attempt.folder / "checkpoint.pt"
    content = checkpoint.read_bytes()
    assert _training._read(checkpoint)["step"] == 1
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    for damaged in (b"", content[:middle], flipped, b"not a checkpoint"):
        checkpoint.write_bytes(damaged)
        assert _training._read(checkpoint) is None
    assert small(steps=1).train(attempt).steps == 1


def test_a_folder_in_the_place_of_a_checkpoint_costs_its_steps_only(small: Make, task: Make) -> None:
    attempt = task()
    (attempt.folder / "checkpoint.pt").mkdir()
    assert small(steps=1).train(attempt).steps == 1
    assert (attempt.folder / "checkpoint.pt").is_file()


def test_a_gradient_step_takes_no_structure_twice(small: Make, task: Make, training: list[Atoms]) -> None:
    """Unless it is asked to: three small structures make batches of three."""
    from psiflow_nequip import _dataset, _start, _training

    few = task(training=training[:3])
    examples = _dataset.examples(few.training, _start.model(small(), few), "training")
    assert _training.fitting_batch(examples) == 3
    assert _training.fitting_batch(examples * 4) == 8


def test_reported_errors_are_those_of_the_model_on_the_validation_set(
    trained: TrainingResult, predictor: Any, validation: list[Atoms]
) -> None:
    energy, forces, stress = [], [], []
    for atoms, found in zip(validation, predictor.predict(validation), strict=True):
        energy.append((found.energy - atoms.get_potential_energy()) / len(atoms))
        forces.append(found.forces - atoms.get_forces())
        if atoms.pbc.all():
            stress.append(found.stress - atoms.get_stress())
    off = np.concatenate(forces)
    expected = {
        "force_rmse": np.sqrt(np.mean(off**2)),
        "force_mae": np.abs(off).mean(),
        "energy_rmse": np.sqrt(np.mean(np.square(energy))),
        "energy_mae": np.abs(energy).mean(),
        "stress_rmse": np.sqrt(np.mean(np.square(stress))),
        "stress_mae": np.abs(stress).mean(),
    }
    assert trained.errors == pytest.approx(expected, rel=1e-6)


def test_the_history_is_a_learning_curve(trained: TrainingResult) -> None:
    steps = [record["step"] for record in trained.history]
    assert steps == list(range(10, 301, 10))
    assert trained.history[-1]["loss"] < trained.history[0]["loss"] / 10
    assert (
        trained.errors["force_rmse"]
        == min((record for record in trained.history), key=lambda record: record["validation_loss"])["force_rmse"]
    )


def test_stress_is_learnt_where_there_is_some(small: Make, task: Make, validation: list[Atoms]) -> None:
    """Energies alone, with and without stresses."""
    heeding, ignoring = (small(steps=150, forces_weight=0, stress_weight=weight).train(task()) for weight in (1e5, 0))
    stresses = [atoms.get_stress() for atoms in validation if atoms.pbc.all()]
    assert heeding.errors["stress_rmse"] < np.sqrt(np.mean(np.square(stresses))) / 2
    assert heeding.errors["stress_rmse"] < ignoring.errors["stress_rmse"] / 2


def test_molecules_alone_are_trained_without_stress(small: Make, task: Make, training: list[Atoms]) -> None:
    result = small(steps=10).train(task(training=training[1::2], validation=[]))
    assert set(result.errors) == {"force_rmse", "force_mae", "energy_rmse", "energy_mae"}


def test_patience_ends_a_training_that_does_not_improve(small: Make, task: Make) -> None:
    result = small(steps=400, evaluate_every=2, patience=2, learning_rate=0.5, learning_rate_decay=1.0).train(task())
    losses = [record["validation_loss"] for record in result.history]
    assert result.steps < 400
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


def test_the_task_decides_the_number_of_steps(small: Make, task: Make) -> None:
    assert small(steps=400).train(task(steps=7)).steps == 7


def test_training_leaves_torch_as_it_was(small: Make, task: Make) -> None:
    import torch

    before = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    small(steps=2, dtype="float64").train(task(resources=Resources(cores=2)))
    assert torch.get_default_dtype() == before[0]
    assert torch.get_num_threads() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


# Parents ---------------------------------------------------------------------------------------------------


def test_a_child_keeps_the_atomic_energies_of_its_parent(
    small: Make, task: Make, trained: TrainingResult, atomic_energies: dict[str, float]
) -> None:
    other = {symbol: energy + 1.0 for symbol, energy in atomic_energies.items()}
    child = small().train(task(parent=trained.model, steps=1, atomic_energies=other))
    assert child.errors["force_rmse"] < 1.01 * trained.errors["force_rmse"]
    alone = small().load(child.model).predict([Atoms("Cu"), Atoms("Al")])
    assert [found.energy for found in alone] == [atomic_energies["Cu"], atomic_energies["Al"]]


@pytest.mark.parametrize("steps", [1, 20])
def test_a_child_is_not_thrown_off_by_its_first_steps(
    small: Make, task: Make, trained: TrainingResult, training: list[Atoms], steps: int
) -> None:
    """Nothing validates here, so that the last weights are the model, whatever they are worth."""
    parent = small().load(trained.model).predict(training)
    off = np.concatenate([one.forces - atoms.get_forces() for one, atoms in zip(parent, training, strict=True)])
    child = small().train(task(parent=trained.model, steps=steps, validation=[]))
    assert child.errors["force_rmse"] < 1.1 * np.sqrt(np.mean(off**2))


def test_a_child_that_only_gets_worse_is_its_parent(small: Make, task: Make, trained: TrainingResult) -> None:
    child = small(warm_learning_rate=10.0).train(task(parent=trained.model, steps=20))
    assert child.errors == pytest.approx(trained.errors, rel=1e-9)
    assert child.history[-1]["force_rmse"] > 1.5 * trained.errors["force_rmse"]


def force_error(model: Path, known: list[Atoms], small: Make) -> float:
    answers = small().load(model).predict(known)
    off = [one.forces - atoms.get_forces() for one, atoms in zip(answers, known, strict=True)]
    return float(np.sqrt(np.mean(np.concatenate(off) ** 2)))


def test_a_child_is_not_its_parent_again_where_that_is_wrong(small: Make, task: Make, training: list[Atoms]) -> None:
    """One structure far from the few that the parent knows well."""
    known, strange = training[:4], training[4].copy()
    strange.rattle(0.3, seed=1)
    strange.calc = EMT()
    strange = with_label(strange, Label(strange.get_potential_energy(), strange.get_forces()))
    parent = small().train(task(training=known, validation=[], steps=500)).model
    child = small().train(task(parent=parent, training=[*known, strange], validation=[], steps=100)).model
    assert force_error(child, [strange], small) < 0.9 * force_error(parent, [strange], small)


def test_a_child_learns_from_more_data_faster_than_a_new_model(
    small: Make, task: Make, trained: TrainingResult
) -> None:
    child = small().train(task(parent=trained.model, steps=30))
    new = small().train(task(steps=30))
    assert child.errors["force_rmse"] < new.errors["force_rmse"] / 1.5


def test_a_parent_of_another_architecture_is_refused(small: Make, task: Make, model: Path) -> None:
    with pytest.raises(TrainingFailed, match="num_bessels=6 there, 4 here"):
        small(num_bessels=4).train(task(parent=model))


def test_a_parent_of_the_other_potential_is_refused(
    other: Potential, task: Make, model: Path, architecture: str
) -> None:
    with pytest.raises(ModelCorrupt, match=f"it is a model of potential '{architecture}'"):
        other.train(task(parent=model))


def test_a_species_that_the_parent_lacks_is_named(small: Make, task: Make, model: Path, training: list[Atoms]) -> None:
    gold = training[1].copy()
    gold.numbers[0] = 79
    labelled = with_label(gold, Label(0.0, np.zeros((5, 3))))
    with pytest.raises(TrainingFailed, match=r"parent model knows Al, Cu, but the data also hold Au"):
        small().train(task(parent=model, training=[*training, labelled]))


# Failures --------------------------------------------------------------------------------------------------


def test_a_species_without_an_atomic_energy_is_named(small: Make, task: Make) -> None:
    with pytest.raises(TrainingFailed, match=r"atomic_energies has Cu, but the data also hold Al"):
        small().train(task(atomic_energies={"Cu": 0.0}))


def test_a_label_that_is_not_finite_fails_before_any_step(small: Make, task: Make, training: list[Atoms]) -> None:
    broken = with_label(training[1], Label(float("nan"), np.zeros((5, 3))))
    with pytest.raises(TrainingFailed, match=r"training structure 16 \(AlCu4\): its label is not finite"):
        small().train(task(training=[*training, broken]))


def test_a_diverging_training_says_what_to_lower(small: Make, task: Make, training: list[Atoms]) -> None:
    huge = with_label(training[1], Label(1e200, np.zeros((5, 3))))
    with pytest.raises(TrainingFailed, match=r"not finite at step \d+: lower learning_rate"):
        small(steps=50).train(task(training=[*training[1::2], huge], validation=[]))


def test_a_device_that_is_not_there_is_named(small: Make, task: Make) -> None:
    import torch

    if torch.cuda.is_available():
        small(steps=2).train(task(resources=Resources(device="cuda")))
    else:
        with pytest.raises(OptionError, match="torch finds no GPU here"):
            small().train(task(resources=Resources(device="cuda")))
