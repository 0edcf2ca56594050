"""What a bias is: an energy with forces and stress, and what it remembers of a walker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from ase import Atoms

from psiflow_core.components import Prediction
from psiflow_core.structures import Array, Plain
from psiflow_core.variables import VOIGT, AnyVariable, Named, Variable, functions


@dataclass(frozen=True)
class Memory:
    """What one bias knows of one walker. It changes at the monitor's checks only."""

    step: int = 0
    """The walker's step at the last check."""
    previous: int = 0
    """The same at the check before."""
    origin: float | None = None
    """Where a restraint began to move. [unit of the variable]"""
    hills: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Centre and height of each, shape (hills, variables + 1). [units of the variables, eV]"""
    last: int = -1
    """The walker's step when the last hill was put; −1 without any."""
    files: dict[str, str] = field(default_factory=dict)
    """What a program keeps for the walker, by the file's name. A file grows, and is changed in no other way."""
    files_before: dict[str, int] | None = None
    """How many characters of each there were before the last check; None if there was no check."""
    temperature: float | None = None
    """The sampler's; None for one without a thermostat. [K]"""

    def before(self) -> Memory:
        """As it was before the last check."""
        fresh = self.last == self.step and len(self.hills) > 0
        lengths = self.files_before
        files = self.files if lengths is None else {name: self.files[name][:length] for name, length in lengths.items()}
        return replace(self, step=self.previous, hills=self.hills[:-1] if fresh else self.hills, files=files)

    def to_plain(self) -> Plain:
        return {**vars(self), "hills": self.hills.tolist()}

    @classmethod
    def from_plain(cls, plain: Plain) -> Self:
        hills = np.array(plain["hills"], float)
        return cls(**{**plain, "hills": hills if len(hills) else np.zeros((0, 0))})


class Bias(Named, ABC):
    """An energy that is added to what moves a walker."""

    @abstractmethod
    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        """Energy [eV], forces [eV/Å] and, where the structure is periodic in all directions, stress [eV/Å³]."""

    @abstractmethod
    def check(self, structure: Atoms) -> None:
        """Refuse a structure that it does not fit, by plain data alone; raises `OptionError`."""

    def try_out(self, structures: Sequence[Atoms], temperature: float | None) -> None:
        """On a worker, before anything runs: refuse what cannot work there; raises `OptionError`.

        Args:
            temperature: the sampler's; None for one without a thermostat. [K]
        """

    def begin(self, memory: Memory, structure: Atoms) -> Memory:
        """Before the first step of a segment."""
        return memory

    def look(self, memory: Memory, structure: Atoms, step: int, temperature: float | None) -> Memory:
        """At a check, of a structure that the monitor found sound.

        Args:
            step: the walker's.
            temperature: the sampler's. [K]
        """
        return replace(memory, step=step, previous=memory.step)


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

    def check(self, structure: Atoms) -> None:
        for variable in self.along:
            variable.check(structure)

    def try_out(self, structures: Sequence[Atoms], temperature: float | None) -> None:
        for function in functions(self.along):
            for structure in structures:
                function.try_out(structure)

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
