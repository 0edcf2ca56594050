"""A stand-in for Compute Engine: no real project is here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psiflow_toys.instances import Engine
from psiflow_toys.service import serving


@pytest.fixture
def engine() -> Engine:
    """The service."""
    return Engine()


@pytest.fixture
def endpoint(engine: Engine) -> Iterator[str]:
    """Where it answers."""
    with serving(engine) as where:
        yield where
