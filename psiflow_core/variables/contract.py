"""What a collective variable is: a value, and how it changes with atoms and cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from ase import Atoms
from pydantic import BeforeValidator, SerializeAsAny, model_serializer

from psiflow_core.components import Policy
from psiflow_core.errors import OptionError, did_you_mean
from psiflow_core.structures import Array, Plain


class Reading(NamedTuple):
    """A variable of one structure."""

    value: float
    """[unit of the variable]"""
    gradient: Array
    """By the positions, shape (atoms, 3). [unit of the variable/Å]"""
    strain: Array
    """By a symmetric strain ε, under which positions r and cell vectors become r(1 + ε); shape (3, 3). [unit of
    the variable]"""


class Named(Policy):
    """A policy that is one of several: as plain data it has its `name`."""

    name: ClassVar[str]

    @model_serializer(mode="wrap")
    def _with_name(self, handler: Any) -> Plain:
        return {"name": self.name, **handler(self)}

    def to_plain(self) -> Plain:
        """As JSON data, its name included."""
        return self.model_dump(mode="json")


def choose(given: Any, known: Sequence[type[Named]], what: str) -> Any:
    """One of these classes from `{"name": …, …}`, or as it is.

    Raises:
        OptionError: it is neither, none has this name, or an option is wrong.
    """
    if isinstance(given, Named):
        return given
    if not isinstance(given, dict) or "name" not in given:
        raise OptionError(f"write a {what} as {{name: …}} with options, not {given!r}")
    names = {one.name: one for one in known}
    name = str(given["name"])
    if name not in names:
        raise OptionError(f"no {what} has the name '{name}'.{did_you_mean(name, names)} Names: {', '.join(names)}")
    return names[name](**{key: value for key, value in given.items() if key != "name"})


class Variable(Named, ABC):
    """A collective variable."""

    @property
    def repeats(self) -> float | None:
        """The period of a variable that turns round; None for others. [unit of the variable]"""
        return None

    @abstractmethod
    def read(self, structure: Atoms) -> Reading:
        """Value and derivatives."""

    @abstractmethod
    def check(self, structure: Atoms) -> None:
        """Refuse a structure that does not have this variable; raises `OptionError`."""

    def value(self, structure: Atoms) -> float:
        """[unit of the variable]"""
        return self.read(structure).value

    def gradient(self, structure: Atoms) -> Array:
        """By the positions, shape (atoms, 3). [unit of the variable/Å]"""
        return self.read(structure).gradient

    def difference(self, value: Any, other: Any) -> Any:
        """value − other, the shortest way round where the variable turns."""
        if self.repeats is None:
            return value - other
        return (value - other + self.repeats / 2) % self.repeats - self.repeats / 2


def _variable(given: Any) -> Any:
    from psiflow_core.variables.names import VARIABLES

    return choose(given, VARIABLES, "variable")


AnyVariable = Annotated[Variable, BeforeValidator(_variable), SerializeAsAny()]
"""A variable, or the plain data of one."""


def symmetric(matrix: Array) -> Array:
    """The symmetric part."""
    return (matrix + matrix.T) / 2
