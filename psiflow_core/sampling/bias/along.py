"""Biases that are functions of collective variables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from psiflow_core.components import Bias, Memory, Prediction, Variable
from psiflow_core.sampling.variables import VOIGT, AnyVariable
from psiflow_core.structures import Array


class AlongVariables(Bias):
    """A bias that is a function of collective variables."""

    @property
    @abstractmethod
    def along(self) -> tuple[Variable, ...]:
        """The variables."""

    @abstractmethod
    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        """Energy [eV], and its derivative by each variable, shape (variables,). [eV/unit of the variable]"""

    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        readings = [variable.read(structure) for variable in self.along]
        energy, slopes = self.of(np.array([reading.value for reading in readings]), memory)
        pairs = list(zip(slopes, readings, strict=True))
        forces = -np.sum([slope * reading.gradient for slope, reading in pairs], axis=0)
        if not structure.pbc.all():
            return Prediction(float(energy), forces)
        strain = np.sum([slope * reading.strain for slope, reading in pairs], axis=0)
        return Prediction(float(energy), forces, strain[VOIGT] / structure.get_volume())

    def where(self, structure: Atoms) -> Array:
        """The variables of a structure, shape (variables,)."""
        return np.array([variable.value(structure) for variable in self.along])

    def check(self, structures: Sequence[Atoms]) -> None:
        for variable in self.along:
            variable.check(structures)

    def try_out(self, structures: Sequence[Atoms], temperature: float | None) -> None:
        for variable in self.along:
            variable.try_out(structures)

    def differences(self, values: Array, others: Array) -> Array:
        """values − others, the shortest way round; variables are in the last axis."""
        apart = [variable.difference(values[..., n], others[..., n]) for n, variable in enumerate(self.along)]
        return np.stack(np.broadcast_arrays(*apart), axis=-1)


class AlongOne(AlongVariables):
    """A bias along one variable."""

    variable: AnyVariable
    """What it acts on."""

    @property
    def along(self) -> tuple[Variable, ...]:
        return (self.variable,)
