"""Sums of variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from ase import Atoms
from pydantic import Field, model_validator

from psiflow_core.components import Reading, Variable
from psiflow_core.sampling.variables.naming import AnyVariable


class Combination(Variable):
    """A sum of variables with coefficients: the difference of two distances, for a proton between them. [mixed]"""

    name: ClassVar[str] = "combination"

    variables: tuple[AnyVariable, ...] = Field(min_length=1)
    """What is added."""
    coefficients: tuple[float, ...]
    """One for each."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.coefficients) != len(self.variables):
            raise ValueError(
                f"{len(self.coefficients)} coefficients for {len(self.variables)} variables; give one each"
            )
        if any(variable.repeats for variable in self.variables):
            raise ValueError("a variable that turns round, such as a dihedral, cannot be added")
        return self

    def read(self, structure: Atoms) -> Reading:
        readings = [variable.read(structure) for variable in self.variables]
        parts = list(zip(self.coefficients, readings, strict=True))
        value = sum(factor * reading.value for factor, reading in parts)
        gradient = np.sum([factor * reading.gradient for factor, reading in parts], axis=0)
        return Reading(value, gradient, np.sum([factor * reading.strain for factor, reading in parts], axis=0))

    def check(self, structures: Sequence[Atoms]) -> None:
        for variable in self.variables:
            variable.check(structures)

    def try_out(self, structures: Sequence[Atoms]) -> None:
        for variable in self.variables:
            variable.try_out(structures)
