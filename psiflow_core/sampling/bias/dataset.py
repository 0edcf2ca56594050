"""Biases over data sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from psiflow_core.components import Bias, BiasPredictor, Memory
from psiflow_core.structures import Array


def values(structures: Sequence[Atoms], bias: Bias, memory: Memory | None = None) -> Array:
    """The energy of a bias over a data set, shape (structures,). [eV]

    Args:
        memory: of the walker, for hills; none by default.

    Raises:
        OptionError: a structure does not have its variables.
    """
    bias.check(structures)
    return np.array([answer.energy for answer in BiasPredictor(bias, memory).predict(structures)])
