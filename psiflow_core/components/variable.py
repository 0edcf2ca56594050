"""Collective variables: the contract of a number that describes a structure."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from ase import Atoms

from psiflow_core.components.named import Named
from psiflow_core.kinds import Kind
from psiflow_core.structures import Array


class Reading(NamedTuple):
    """The value and the derivatives of a variable for one structure."""

    value: float
    """[unit of the variable]"""
    gradient: Array
    """By the positions, shape (atoms, 3). [unit of the variable/Å]"""
    strain: Array
    """By a symmetric strain ε, under which positions r and cell vectors become r(1 + ε); shape (3, 3). [unit of
    the variable]"""


class Variable(Named):
    """A collective variable. Moving the whole structure does not change it."""

    kind: ClassVar[Kind] = "variable"

    @property
    def repeats(self) -> float | None:
        """The period of a periodic variable; None for others. [unit of the variable]"""
        return None

    @abstractmethod
    def read(self, structure: Atoms) -> Reading:
        """Value and derivatives."""

    def check(self, structures: Sequence[Atoms]) -> None:
        """Refuse structures that do not have this variable, by plain data alone: this runs in the driver.

        Raises:
            OptionError: what is wrong and what to do.
        """

    def try_out(self, structures: Sequence[Atoms]) -> None:
        """On a worker, before anything runs: refuse what cannot work there; raises `OptionError`."""

    def value(self, structure: Atoms) -> float:
        """[unit of the variable]"""
        return self.read(structure).value

    def gradient(self, structure: Atoms) -> Array:
        """By the positions, shape (atoms, 3). [unit of the variable/Å]"""
        return self.read(structure).gradient

    def difference(self, value: Any, other: Any) -> Any:
        """value − other; for a periodic variable, the shortest difference."""
        if self.repeats is None:
            return value - other
        return (value - other + self.repeats / 2) % self.repeats - self.repeats / 2
