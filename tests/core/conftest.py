"""Workers, and small campaigns that have run, for the tests of what runs and of what looks at campaigns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ase.build import molecule
from psiflow_toys import campaigns

import psiflow_core as psiflow
from psiflow_core.context import Context


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Two worker processes."""
    with Context(psiflow.executor("local", workers=2), folder=tmp_path_factory.mktemp("pools")) as context:
        yield context


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished campaign with 12 labels, some of which failed. Look, and leave it as it is."""
    folder = tmp_path_factory.mktemp("campaigns") / "toy"
    learning = psiflow.OnlineLearning(
        potential="toy",
        sampler=psiflow.sampler("ase", ensemble="nve", temperature=100.0),
        reference=psiflow.reference("toy", fail_fraction=0.2),
        walkers=2,
        committee=2,
        budget=psiflow.Budget(labels=12),
        bootstrap=psiflow.Bootstrap(structures=8),
        walking=psiflow.Walking(segment=psiflow.Segments(steps=20)),
        stopping=psiflow.Stopping(tolerated_failures=1.0),
    )
    with psiflow.Context("threads", folder=folder / "pools") as context:
        learning.run(start=molecule("H2O"), folder=folder, context=context, test=[molecule("H2O")], progress=False)
    return folder


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished campaign whose walkers gave most of its 14 labels. Look, and leave it as it is."""
    folder = tmp_path_factory.mktemp("campaigns") / "learned"
    learning = campaigns.learning(
        14,
        selection=psiflow.Selection(deviation=0.0, validation=0.2),
        training=psiflow.Training(final_steps=3),
    )
    with psiflow.Context("threads", folder=folder / "pools") as context:
        campaigns.run(folder, context, learning, test=campaigns.moved_water(2, seed=5))
    return folder
