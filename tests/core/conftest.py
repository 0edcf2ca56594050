"""A small campaign that has run, for the tests of what looks at campaigns."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import molecule

import psiflow_core as psiflow


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
