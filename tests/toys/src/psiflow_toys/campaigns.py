"""Campaigns of the toy components, small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule

import psiflow_core as psiflow
from psiflow_core.execution.context import Context
from psiflow_core.online import Result
from psiflow_core.structures import displaced


def water() -> list[Atoms]:
    return [molecule("H2O")]


def moved_water(number: int, seed: int, amplitude: float = 0.1) -> list[Atoms]:
    random = np.random.default_rng(seed)
    return [displaced(molecule("H2O"), amplitude, 0.0, random) for _ in range(number)]


def learning(labels: int = 12, **settings: Any) -> psiflow.OnlineLearning:
    given = {
        "potential": psiflow.potential("toy", basis=8),
        "sampler": psiflow.sampler("ase", temperature=900.0),
        "reference": psiflow.reference("toy"),
        "walkers": 3,
        "committee": 2,
        "bootstrap": psiflow.Bootstrap(structures=4),
        "walking": psiflow.Walking(
            segment=psiflow.Segments(steps=10, check_every=5),
            limits=psiflow.Limits(deviation=0.05, lost=500.0, force=1e4),
        ),
        "selection": psiflow.selection("uncertain", threshold=0.0),
        "budget": psiflow.Budget(labels=labels),
    }
    return psiflow.OnlineLearning(**{**given, **settings})


def run(folder: Path, context: Context | None, *arguments: Any, start: Any = None, **options: Any) -> Result:
    asked = arguments[0] if arguments else learning()
    return asked.run(start=start or water(), folder=folder, context=context, progress=False, **options)
