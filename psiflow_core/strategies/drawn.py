"""Selection by lot."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

from ase import Atoms
from pydantic import Field, PositiveInt

from psiflow_core.components import Met, Model, OnlineStrategy
from psiflow_core.structures import digest


class Random(OnlineStrategy):
    """Structures drawn by lot, without a model: the baseline of the other strategies.

    The lot of a structure follows from the structure and the seed. In a campaign lots are drawn among the most
    uncertain structures of the segments.
    """

    name: ClassVar[str] = "random"

    fraction: float = Field(default=1.0, gt=0, le=1)
    """Fraction of the structures that is worth a label. [1]"""
    count: PositiveInt | None = None
    """How many `choose` chooses at most; None is no limit. A campaign has its budget instead."""
    seed: int = Field(default=0, ge=0)
    """Another seed draws others."""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        lots = [self._lot(digest(candidate)) for candidate in candidates]
        wanted = [number for number, lot in enumerate(lots) if self._wins(lot)]
        return sorted(wanted, key=lambda number: (-lots[number], number))[: self.count]

    def wanted(self, met: Met) -> bool:
        return self._wins(self._lot(met.structure))

    def priority(self, met: Met) -> float:
        return self._lot(met.structure)

    def _lot(self, structure: str) -> float:
        """A number for a structure, evenly distributed, 0 ≤ lot < 1."""
        drawn = hashlib.sha256(f"{self.seed}/{structure}".encode()).digest()[:6]
        return int.from_bytes(drawn, "big") / 2**48

    def _wins(self, lot: float) -> bool:
        return lot >= 1 - self.fraction
