"""The toys fulfil the contracts that every plugin has to fulfil."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from psiflow_toys.potential import ToyPotential
from psiflow_toys.reference import ToyReference

from psiflow_core.components import LabelTask, TrainingTask
from psiflow_core.errors import ReferenceFailed
from psiflow_core.structures import isolated_atom, with_label
from psiflow_core.testing import PotentialContract, ReferenceContract


class TestToyPotential(PotentialContract):
    component = ToyPotential
    options = {"cutoff": 5.5}  # noqa: RUF012
    expected_failures = {  # noqa: RUF012
        "test_the_charge_matters_or_is_refused": "it sees atoms alone",
        "test_an_interrupted_training_is_resumed": "it takes no time, and leaves no checkpoint",
    }


class TestToyReference(ReferenceContract):
    component = ToyReference
    expected_failures = {"test_the_charge_matters_or_is_refused": "it sees atoms alone"}  # noqa: RUF012


def _labelled(number: int, seed: int, folder: Path) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    structures = [molecule("CH3CHO") for _ in range(number)]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    return [with_label(atoms, ToyReference().label(atoms, LabelTask(folder))) for atoms in structures]


def test_more_data_make_the_toy_potential_better(tmp_path: Path) -> None:
    training, validation = _labelled(32, 1, tmp_path), _labelled(8, 2, tmp_path)
    atoms = {symbol: ToyReference().label(isolated_atom(symbol), LabelTask(tmp_path)).energy for symbol in "CHO"}
    errors = []
    for number in (2, 8, 32):
        task = TrainingTask(training[:number], validation, atoms, seed=0, folder=tmp_path / str(number))
        errors.append(ToyPotential().train(task).errors["force_rmse"])
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2]


def test_the_toy_reference_fails_on_the_fraction_that_it_is_asked_to(tmp_path: Path) -> None:
    reference, failures = ToyReference(fail_fraction=0.3), 200
    for distance in np.linspace(0.7, 2.0, 200):
        with suppress(ReferenceFailed):
            reference.label(Atoms("H2", [[0, 0, 0], [0, 0, distance]]), LabelTask(tmp_path))
            failures -= 1
    assert failures == pytest.approx(60, abs=25)  # four standard deviations
