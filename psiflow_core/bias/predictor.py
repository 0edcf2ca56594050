"""Biases over data sets, and as predictors: terms of a sum that any sampler can move by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from psiflow_core.bias.contract import Bias, Memory
from psiflow_core.components import Prediction, Predictor
from psiflow_core.structures import Array


class BiasPredictor(Predictor):
    """A bias as a predictor; what it remembers of a walker stays as it is given."""

    def __init__(self, bias: Bias, memory: Memory | None = None) -> None:
        self._bias = bias
        self._memory = memory or Memory()

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [self._bias.evaluate(structure, self._memory) for structure in structures]


def values(structures: Sequence[Atoms], bias: Bias, memory: Memory | None = None) -> Array:
    """The energy of a bias over a data set, shape (structures,). [eV]

    Args:
        memory: of the walker, for hills; none by default.

    Raises:
        OptionError: a structure does not have its variables.
    """
    for structure in structures:
        bias.check(structure)
    return np.array([answer.energy for answer in BiasPredictor(bias, memory).predict(structures)])
