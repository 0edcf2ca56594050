"""A stand-in for a cluster: no real one is here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from psiflow_toys.pods import Cluster
from psiflow_toys.service import serving


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """The service."""
    started = Cluster()
    yield started
    started.close()


@pytest.fixture
def address(cluster: Cluster) -> Iterator[str]:
    """Where it answers."""
    with serving(cluster) as where:
        yield where


@pytest.fixture
def kubeconfig(address: str, tmp_path: Path) -> str:
    """The file that leads to it."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "users": [{"name": "me", "user": {"token": "nothing"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    return str(file)
