"""Well-tempered metadynamics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
from ase import Atoms, units
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from psiflow_core.components import Memory, Variable
from psiflow_core.errors import OptionError
from psiflow_core.sampling.bias.along import AlongVariables
from psiflow_core.sampling.variables import AnyVariable
from psiflow_core.structures import Array


class Metadynamics(AlongVariables):
    """Gaussian hills where the walker has been, ever lower where there are many: well-tempered metadynamics.

    Barducci, Bussi and Parrinello, Phys. Rev. Lett. 100, 020603 (2008). Each walker has its own hills; one that starts
    over has none. A hill acts from the step after the check at which it was put.
    """

    name: ClassVar[str] = "metadynamics"

    variables: tuple[AnyVariable, ...] = Field(min_length=1, max_length=3)
    """One to three."""
    sigma: tuple[PositiveFloat, ...]
    """Width of the hills along each variable. [unit of the variable]"""
    height: PositiveFloat
    """Height of the first hill. [eV]"""
    every: PositiveInt = 100
    """Steps of the walker between two hills; a hill is put at the first check after so many."""
    bias_factor: float | None = Field(default=10.0, gt=1)
    """γ: the higher, the higher the barriers that are crossed; the sampler needs a temperature. None is metadynamics
    whose hills never become lower. [1]"""

    @field_validator("sigma", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return (given,) if isinstance(given, int | float) else given

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.sigma) != len(self.variables):
            raise ValueError(
                f"{len(self.sigma)} widths in sigma for {len(self.variables)} variables; give one for each"
            )
        return self

    @property
    def along(self) -> tuple[Variable, ...]:
        return self.variables

    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        if not len(memory.hills):
            return 0.0, np.zeros(len(values))
        away = self.differences(values, memory.hills[:, :-1]) / np.array(self.sigma)
        each = memory.hills[:, -1] * np.exp(-0.5 * (away**2).sum(axis=1))
        return float(each.sum()), -(each @ away) / np.array(self.sigma)

    def look(self, memory: Memory, structure: Atoms, step: int, temperature: float | None) -> Memory:
        seen = super().look(memory, structure, step, temperature)
        if step - max(memory.last, 0) < self.every:
            return seen
        where = self.where(structure)
        hill = np.append(where, self.height * self._scale(self.of(where, memory)[0], temperature))
        hills = np.vstack([memory.hills.reshape(-1, len(hill)), hill])
        return replace(seen, hills=hills, last=step)

    def try_out(self, structures: Sequence[Atoms], temperature: float | None) -> None:
        super().try_out(structures, temperature)
        if self.bias_factor is not None and temperature is None:
            raise OptionError(
                "bias 'metadynamics': bias_factor needs a sampler with a temperature; choose 'nvt' or 'npt', or set "
                "bias_factor to None"
            )

    def free_energy(self, hills: Array, points: Sequence[Sequence[float]] | Array) -> Array:
        """The free energy from hills, −γ/(γ − 1) V, with its minimum at 0; shape (points,). [eV]

        Args:
            hills: `Memory.hills`; under ``bias`` in a walker's file.
            points: values of the variables, shape (points, variables).
        """
        grown = Memory(hills=np.asarray(hills, float))
        scale = 1.0 if self.bias_factor is None else self.bias_factor / (self.bias_factor - 1)
        free = -scale * np.array([self.of(np.atleast_1d(point), grown)[0] for point in points])
        return np.asarray(free - free.min())

    def _scale(self, energy: float, temperature: float | None) -> float:
        """How much lower than the first a hill is where the bias has this energy."""
        if self.bias_factor is None or temperature is None:
            return 1.0
        return float(np.exp(-energy / (units.kB * temperature * (self.bias_factor - 1))))
