"""Residuals of predictions, and the errors that a training reports; they are defined as those of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from psiflow_core.components import Prediction
from psiflow_core.potentials.metrics import rms
from psiflow_core.structures import Array, label_of


class Residual(NamedTuple):
    """A prediction for one structure minus its label."""

    energy: float
    """[eV/atom]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array | None
    """Shape (3, 3); None if label or prediction has no stress. [eV/Å³]"""


def residuals(structures: Sequence[Atoms], predictions: Sequence[Prediction]) -> list[Residual]:
    """The residual of each labelled structure."""
    return [_residual(atoms, prediction) for atoms, prediction in zip(structures, predictions, strict=True)]


def training_errors(residuals: Sequence[Residual]) -> dict[str, float]:
    """Root mean square and mean absolute errors, as `TrainingResult.errors` has them.

    Forces [eV/Å], energies [eV/atom], and stresses [eV/Å³] over their six components, if there are any.
    """
    forces = np.concatenate([one.forces for one in residuals])
    energies = np.array([one.energy for one in residuals])
    errors = {
        "force_rmse": rms(forces),
        "force_mae": float(np.abs(forces).mean()),
        "energy_rmse": rms(energies),
        "energy_mae": float(np.abs(energies).mean()),
    }
    stresses = [full_3x3_to_voigt_6_stress(one.stress) for one in residuals if one.stress is not None]
    if stresses:
        errors |= {"stress_rmse": rms(np.array(stresses)), "stress_mae": float(np.abs(stresses).mean())}
    return errors


def _residual(atoms: Atoms, prediction: Prediction) -> Residual:
    label = label_of(atoms)
    stress = None
    if label.stress is not None and prediction.stress is not None:
        stress = voigt_6_to_full_3x3_stress(prediction.stress - label.stress)
    return Residual((prediction.energy - label.energy) / len(atoms), prediction.forces - label.forces, stress)
