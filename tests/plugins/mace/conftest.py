"""Models of MACE that are trained in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psiflow_mace.potential import Mace

SMALL: dict[str, Any] = {
    "r_max": 4.5,
    "num_channels": 8,
    "max_ell": 1,
    "num_radial_basis": 6,
    "readout_channels": 8,
    "batch_size": 2,
    "evaluate_every": 10,
    "dtype": "float64",
}
"""Options of a network that trains in seconds."""


@pytest.fixture(scope="session")
def small() -> Any:
    """Makes potentials with a tiny network."""

    def make(**options: Any) -> Mace:
        return Mace(**{**SMALL, **options})

    return make


@pytest.fixture(scope="session")
def trained(small: Any, task: Any) -> Any:
    """The result of a training long enough to have learnt something."""
    return small(steps=300).train(task())


@pytest.fixture(scope="session")
def model(trained: Any) -> Path:
    return Path(trained.model)


@pytest.fixture(scope="session")
def predictor(small: Any, model: Path) -> Any:
    return small().load(model)
