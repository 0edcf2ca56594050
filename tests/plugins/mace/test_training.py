"""MACE learns stresses; the training itself is that of `psiflow_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from psiflow_core.components import TrainingResult

Make = Callable[..., Any]


def test_stress_is_learnt_where_there_is_some(
    small: Make, task: Make, trained: TrainingResult, validation: list[Atoms]
) -> None:
    heeding = small(stress_weight=1e5, warm_learning_rate=0.02).train(task(parent=trained.model, steps=80))
    ignoring = small(stress_weight=0.0, warm_learning_rate=0.02).train(task(parent=trained.model, steps=80))
    crystals = [atoms for atoms in validation if atoms.pbc.all()]
    stresses = [atoms.get_stress(voigt=False) for atoms in crystals]
    off = _stress_errors(small().load(heeding.model), crystals)
    assert np.sqrt(np.mean(np.square(off))) < np.sqrt(np.mean(np.square(stresses))) / 2
    assert heeding.errors["stress_rmse"] < ignoring.errors["stress_rmse"]


def _stress_errors(predictor: Any, crystals: list[Atoms]) -> list[Any]:
    """Of all nine components, shape (crystals, 3, 3)."""
    said = predictor.predict(crystals)
    pairs = zip(said, crystals, strict=True)
    return [voigt_6_to_full_3x3_stress(one.stress) - atoms.get_stress(voigt=False) for one, atoms in pairs]
