"""Policies for structures: which are made to begin with, and which candidates are worth a label."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np
from ase import Atoms
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from psiflow_core.checks import closest_pair
from psiflow_core.components import Policy
from psiflow_core.learning.walkers import derive_seed
from psiflow_core.structures import bare, displaced

TOO_CLOSE = 0.5
"""Displaced atoms that come nearer to each other than this are displaced anew. [Å]"""

TRIES = 50
"""Displacements to try before a starting structure is given up."""


class Bootstrap(Policy):
    """Structures to learn from before there is a model."""

    structures: NonNegativeInt = 10
    """How many; they count in the budget of labels. 0 with initial data or an initial model."""
    amplitude: NonNegativeFloat = 0.1
    """Each coordinate moves by a number drawn evenly from ± this. [Å]"""
    strain: NonNegativeFloat = 0.03
    """Each component of the strain of a periodic structure is drawn evenly from ± this. [1]"""

    def make(self, start: Sequence[Atoms], seed: int) -> list[Atoms]:
        """Displaced copies of the starting structures, taken in turn."""
        return [
            self._displaced(start[n % len(start)], derive_seed(seed, "bootstrap", n)) for n in range(self.structures)
        ]

    def _displaced(self, structure: Atoms, seed: int) -> Atoms:
        random = np.random.default_rng(seed)
        origin = bare(structure)
        for attempt in range(TRIES):
            shrink = 1 - attempt / TRIES
            moved = displaced(origin, self.amplitude * shrink, self.strain * shrink, random)
            if closest_pair(moved, TOO_CLOSE) is None:
                break
        return moved


class Selection(Policy):
    """Which candidates are labelled, and in which order: the most uncertain first."""

    deviation: NonNegativeFloat = 0.05
    """A segment's most uncertain structure is worth a label if its committee spread is above this. [eV/Å]"""
    validation: float = Field(default=0.1, ge=0, le=0.5)
    """Fraction of the labels that is never trained on, and that early stopping looks at."""

    def wanted(self, deviation: float) -> bool:
        """Whether a structure is worth a label."""
        return not deviation <= self.deviation  # what is not a number is not known

    def subset(self, number: int) -> str:
        """Where the label of this number goes: that fraction into the validation set, evenly spread."""
        before, after = (floor(count * self.validation + 0.5) for count in (number, number + 1))
        return "validation" if after > before else "training"
