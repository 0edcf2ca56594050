"""The initial structures of a campaign."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from pydantic import NonNegativeFloat, NonNegativeInt

from psiflow_core.checks import closest_pair
from psiflow_core.components import Policy
from psiflow_core.sampling.segments import derive_seed
from psiflow_core.structures import bare, displaced

TOO_CLOSE = 0.5
"""The smallest distance between displaced atoms; closer ones are displaced again. [Å]"""

TRIES = 50
"""Largest number of displacements tried for a structure."""


class Bootstrap(Policy):
    """Displaced structures to train the first model on."""

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
