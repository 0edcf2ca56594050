"""Errors of a training mean the same as those that a campaign reports."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from psiflow_core.components import Prediction
from psiflow_core.potentials.metrics import errors
from psiflow_core.potentials.residuals import residuals, training_errors
from psiflow_core.structures import Label, with_label

LABEL_STRESS = np.array([0.01, 0.02, 0.03, 0.0, 0.0, 0.0])


@pytest.fixture
def labelled() -> list[Atoms]:
    """A crystal with a stress, and a molecule."""
    molecule = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    return [
        with_label(bulk("Cu"), Label(-1.0, np.zeros((1, 3)), LABEL_STRESS)),
        with_label(molecule, Label(-2.0, np.ones((2, 3)))),
    ]


@pytest.fixture
def predictions() -> list[Prediction]:
    """Wrong by known amounts: 0.1 eV, and 0.4 eV for two atoms; one shear stress is off, which the tensor has twice."""
    sheared = LABEL_STRESS + np.array([0.003, 0.0, 0.0, 0.0, 0.0, 0.004])
    return [Prediction(-1.1, np.full((1, 3), 0.3), sheared), Prediction(-1.6, np.ones((2, 3)), None)]


def test_errors_are_per_atom_and_per_component(labelled: list[Atoms], predictions: list[Prediction]) -> None:
    found = training_errors(residuals(labelled, predictions))
    assert found["energy_rmse"] == pytest.approx(np.sqrt((0.1**2 + 0.2**2) / 2))
    assert found["energy_mae"] == pytest.approx(0.15)
    assert found["force_rmse"] == pytest.approx(0.3 * np.sqrt(1 / 3))
    assert found["force_mae"] == pytest.approx(0.1)
    assert found["stress_rmse"] == pytest.approx(np.sqrt((0.003**2 + 0.004**2) / 6))
    assert found["stress_mae"] == pytest.approx(0.007 / 6)


def test_a_training_and_a_campaign_mean_the_same_errors(labelled: list[Atoms], predictions: list[Prediction]) -> None:
    told = [{"energy": one.energy, "forces": one.forces, "stress": one.stress} for one in predictions]
    reported = errors(labelled, told)
    found = training_errors(residuals(labelled, predictions))
    assert found == pytest.approx({name: getattr(reported, name) for name in found})


def test_molecules_alone_have_no_errors_of_stress(labelled: list[Atoms], predictions: list[Prediction]) -> None:
    assert not {"stress_rmse", "stress_mae"} & set(training_errors(residuals(labelled[1:], predictions[1:])))
