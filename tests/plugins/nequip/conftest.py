"""A few copper-aluminium structures, labelled by ASE's effective-medium theory, and models trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

MISSING = [package for package in ("nequip", "allegro", "psiflow_nequip") if find_spec(package) is None]

SMALL: dict[str, dict[str, Any]] = {
    "nequip": {"l_max": 1, "num_features": 8, "radial_mlp_width": 16},
    "allegro": {"l_max": 1, "num_scalar_features": 16, "num_tensor_features": 4, "mlp_width": 16},
}
"""Options of networks that train in seconds."""

SHORT = {"r_max": 4.5, "num_bessels": 6, "batch_size": 2, "evaluate_every": 10, "dtype": "float64"}


class Elsewhere(pytest.Module):
    """A test module that another environment runs: NequIP and MACE need different versions of e3nn."""

    def collect(self) -> Iterator[Any]:
        pytest.skip(f"{', '.join(MISSING)} not installed here; run it where psiflow-nequip is", allow_module_level=True)


if MISSING:

    def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module:
        return Elsewhere.from_parent(parent, path=module_path)


@pytest.fixture(scope="session", params=["nequip", "allegro"])
def architecture(request: pytest.FixtureRequest) -> str:
    """The name of a potential: what asks for this holds for both."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Makes potentials with a tiny network, by name."""
    from psiflow_nequip.potential import Allegro, Nequip

    kinds = {"nequip": Nequip, "allegro": Allegro}

    def make(architecture: str, **options: Any) -> Any:
        return kinds[architecture](**{**SHORT, **SMALL[architecture], **options})

    return make


@pytest.fixture(scope="session")
def small(tiny: Any, architecture: str) -> Any:
    """Makes potentials with a tiny network, of either kind."""
    return partial(tiny, architecture)


@pytest.fixture(scope="session")
def other(tiny: Any, architecture: str) -> Any:
    """A potential of the other kind."""
    return tiny("allegro" if architecture == "nequip" else "nequip")


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
