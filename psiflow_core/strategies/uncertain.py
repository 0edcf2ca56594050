"""Selection by the disagreement of a committee."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import ClassVar

import numpy as np
from ase import Atoms
from pydantic import NonNegativeFloat, PositiveInt

from psiflow_core.components import Met, Model, OnlineStrategy, Prediction
from psiflow_core.errors import OptionError


class Uncertain(OnlineStrategy):
    """Structures about whose forces the committee disagrees, the most uncertain first.

    Query by committee: Seung, Opper and Sompolinsky, Proc. COLT, 287 (1992). In a campaign the most uncertain structure
    of each segment is asked about, and asked about again by each newer model. A single model wants everything.
    """

    name: ClassVar[str] = "uncertain"

    threshold: NonNegativeFloat = 0.05
    """A structure is worth a label if the committee's largest force spread is above this. [eV/Å]"""
    count: PositiveInt | None = None
    """How many `choose` chooses at most; None is no limit. A campaign has its budget instead."""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        if model is None:
            raise OptionError("selection 'uncertain' needs a model: give a committee, or use 'diverse' or 'random'")
        spreads = [_spread(prediction) for prediction in model.predict(candidates)] if candidates else []
        wanted = [number for number, spread in enumerate(spreads) if not spread <= self.threshold]
        return sorted(wanted, key=lambda number: (-spreads[number], number))[: self.count]

    def wanted(self, met: Met) -> bool:
        return met.deviation is None or not met.deviation <= self.threshold  # a spread that is not a number is unknown

    def priority(self, met: Met) -> float:
        return 0.0 if met.deviation is None else _ranked(met.deviation)


def _spread(prediction: Prediction) -> float:
    """The largest force spread; without limit where it is not finite. [eV/Å]"""
    if prediction.deviation is None:
        raise OptionError("selection 'uncertain' needs a committee, and a single model has no spread: train members=2")
    return _ranked(float(np.max(prediction.deviation)))


def _ranked(spread: float) -> float:
    """The spread; without limit where it is not finite: nothing is known there. [eV/Å]"""
    return spread if isfinite(spread) else inf
