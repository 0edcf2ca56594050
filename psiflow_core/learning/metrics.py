"""Errors of predictions against labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from psiflow_core.structures import Array, Plain, label_of


def errors(structures: Sequence[Atoms], predictions: Sequence[Plain]) -> dict[str, float]:
    """RMSE and MAE of forces [eV/Å], of energies per atom [eV/atom] and of total energies [eV].

    Of stresses [eV/Å³] as well, over those structures whose label and prediction have one; absent if none has.

    Args:
        structures: labelled.
        predictions: ``{"energy", "forces", …}`` in the same order.
    """
    labels = [label_of(structure) for structure in structures]
    atoms = np.array([len(structure) for structure in structures])
    pairs = list(zip(labels, predictions, strict=True))
    forces = np.concatenate([np.ravel(label.forces - np.array(given["forces"])) for label, given in pairs])
    energies = np.array([label.energy - given["energy"] for label, given in pairs])
    found = {
        "force_rmse": rms(forces),
        "force_mae": float(np.abs(forces).mean()),
        "energy_rmse": rms(energies / atoms),
        "energy_mae": float(np.abs(energies / atoms).mean()),
        "total_energy_rmse": rms(energies),
        "total_energy_mae": float(np.abs(energies).mean()),
    }
    stresses = stress_pairs(structures, predictions)
    if len(stresses):
        off = stresses[:, 1] - stresses[:, 0]
        found |= {"stress_rmse": rms(off), "stress_mae": float(np.abs(off).mean())}
    return found


def stress_pairs(structures: Sequence[Atoms], predictions: Sequence[Plain]) -> Array:
    """Labelled and predicted stresses where there are both, shape (structures that have both, 2, 6). [eV/Å³]"""
    labels = [label_of(structure).stress for structure in structures]
    pairs = [
        (label, given["stress"])
        for label, given in zip(labels, predictions, strict=True)
        if label is not None and given["stress"] is not None
    ]
    return np.array(pairs, float).reshape(-1, 2, 6)


def error_at(structure: Atoms, prediction: Plain) -> dict[str, float]:
    """A model's error at one labelled structure: forces [eV/Å] and energy [eV/atom]."""
    label = label_of(structure)
    return {
        "force_rmse": rms(np.ravel(label.forces - np.array(prediction["forces"]))),
        "energy_per_atom": abs(label.energy - prediction["energy"]) / len(structure),
    }


def rms(values: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))
