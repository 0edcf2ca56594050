"""The training loop learns, starts from parents, and fails in words, beyond what holds for every potential."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from psiflow_core.components import Resources, TrainingResult
from psiflow_core.errors import OptionError, TrainingFailed
from psiflow_core.structures import Label, with_label

Make = Callable[..., Any]


def test_a_folder_in_the_place_of_a_checkpoint_costs_its_steps_only(small: Make, task: Make) -> None:
    attempt = task()
    (attempt.folder / "checkpoint.pt").mkdir()
    assert small(steps=1).train(attempt).steps == 1
    assert (attempt.folder / "checkpoint.pt").is_file()


def test_a_gradient_step_takes_no_structure_twice(small: Make, task: Make, training: list[Atoms]) -> None:
    """Unless it is asked to: three small structures make batches of three."""
    from psiflow_torch.examples import examples
    from psiflow_torch.schedule import fitting_batch
    from psiflow_torch.start import start

    few, potential = task(training=training[:3]), small()
    begin, _ = start(potential, potential.architecture(), few, potential.trained)
    made = examples(few.training, begin, begin.energies, "training")
    assert fitting_batch(made) == 3
    assert fitting_batch(made * 4) == 8


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


def test_stress_is_learnt_where_there_is_some(small: Make, task: Make, trained: TrainingResult) -> None:
    heeding, ignoring = (
        small(stress_weight=weight, warm_learning_rate=0.02).train(task(parent=trained.model, steps=80))
        for weight in (1e5, 0.0)
    )
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
    assert child.errors["force_rmse"] <= trained.errors["force_rmse"]
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
    assert child.history[-1]["force_rmse"] > 2 * trained.errors["force_rmse"]


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
    assert child.errors["force_rmse"] < new.errors["force_rmse"]


# Failures --------------------------------------------------------------------------------------------------


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
