"""NequIP and Allegro learn stresses, and are not each other's parents; the rest of training is `psiflow_torch`'s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.components import Potential
from psiflow_core.errors import ModelCorrupt

Make = Callable[..., Any]


def test_stress_is_learnt_where_there_is_some(small: Make, task: Make, validation: list[Atoms]) -> None:
    """Energies alone, with and without stresses."""
    heeding, ignoring = (small(steps=150, forces_weight=0, stress_weight=weight).train(task()) for weight in (1e5, 0))
    stresses = [atoms.get_stress() for atoms in validation if atoms.pbc.all()]
    assert heeding.errors["stress_rmse"] < np.sqrt(np.mean(np.square(stresses))) / 2
    assert heeding.errors["stress_rmse"] < ignoring.errors["stress_rmse"] / 2


def test_a_parent_of_the_other_potential_is_refused(
    other: Potential, task: Make, model: Path, architecture: str
) -> None:
    with pytest.raises(ModelCorrupt, match=f"it is a model of potential '{architecture}'"):
        other.train(task(parent=model))
