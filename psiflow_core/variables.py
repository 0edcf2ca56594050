"""Collective variables: a number that says where a structure is, and how it changes with atoms and cell.

A variable is plain data, in YAML `{name: distance, atoms: [0, 1]}`. Where a structure is periodic, the vector between
two atoms is the shortest of all its images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import product
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    SerializeAsAny,
    model_serializer,
    model_validator,
)

from psiflow_core.components import Policy
from psiflow_core.errors import OptionError, did_you_mean
from psiflow_core.structures import Array, Plain

TURN = 2 * np.pi

VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
"""Rows and columns of (xx, yy, zz, yz, xz, xy)."""

TINY = 1e-12
"""Keeps what has no direction, an angle of three atoms in a line for instance, from dividing by zero."""


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
    return choose(given, VARIABLES, "variable")


AnyVariable = Annotated[Variable, BeforeValidator(_variable), SerializeAsAny()]
"""A variable, or the plain data of one."""


class _OfVectors(Variable):
    """A variable that is a function of vectors between pairs of atoms."""

    @model_validator(mode="after")
    def _atoms_differ(self) -> Self:
        atoms: Sequence[int] = getattr(self, "atoms", ())
        if len(set(atoms)) < len(atoms):
            raise ValueError(f"atoms={list(atoms)}: an atom is named twice")
        return self

    @abstractmethod
    def _pairs(self) -> NDArray[np.int64]:
        """From which atom to which, shape (pairs, 2)."""

    @abstractmethod
    def _of(self, vectors: Array) -> tuple[float, Array]:
        """The value, and its derivative by each vector, shape (pairs, 3)."""

    def read(self, structure: Atoms) -> Reading:
        first, second = self._pairs().T
        vectors = nearest(structure.positions[second] - structure.positions[first], structure)
        value, slopes = self._of(vectors)
        gradient = np.zeros((len(structure), 3))
        np.add.at(gradient, second, slopes)
        np.add.at(gradient, first, -slopes)
        return Reading(value, gradient, _symmetric(slopes.T @ vectors))

    def check(self, structure: Atoms) -> None:
        highest = int(self._pairs().max())
        if highest >= len(structure):
            raise OptionError(
                f"variable '{self.name}': there is no atom {highest} in {structure.get_chemical_formula()}, which has "
                f"{len(structure)} atoms; they are counted from 0"
            )


class Distance(_OfVectors):
    """The distance of two atoms. [Å]"""

    name: ClassVar[str] = "distance"

    atoms: tuple[NonNegativeInt, NonNegativeInt]
    """The two, counted from 0."""

    def _pairs(self) -> NDArray[np.int64]:
        return np.array([self.atoms])

    def _of(self, vectors: Array) -> tuple[float, Array]:
        distance = float(np.linalg.norm(vectors))
        return distance, vectors / max(distance, TINY)


class Angle(_OfVectors):
    """The angle at the middle one of three atoms, from 0 to π. [rad]"""

    name: ClassVar[str] = "angle"

    atoms: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
    """The three, counted from 0; the second is in the middle."""

    def _pairs(self) -> NDArray[np.int64]:
        left, middle, right = self.atoms
        return np.array([[middle, left], [middle, right]])

    def _of(self, vectors: Array) -> tuple[float, Array]:
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), TINY)
        to_left, to_right = vectors / lengths[:, None]
        cosine, sine = float(to_left @ to_right), float(np.linalg.norm(np.cross(to_left, to_right)))
        slopes = np.array([cosine * to_left - to_right, cosine * to_right - to_left])
        return float(np.arctan2(sine, cosine)), slopes / (max(sine, TINY) * lengths[:, None])


class Dihedral(_OfVectors):
    """The torsion about the bond between the second and the third of four atoms, from −π to π, 0 where they are cis.

    Its gradient is that of Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), which has no singularity at 0 and π.
    [rad]
    """

    name: ClassVar[str] = "dihedral"

    atoms: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt]
    """The four along the chain, counted from 0."""

    @property
    def repeats(self) -> float | None:
        return TURN

    def _pairs(self) -> NDArray[np.int64]:
        return np.array([self.atoms[:-1], self.atoms[1:]]).T

    def _of(self, vectors: Array) -> tuple[float, Array]:
        before, axis, after = vectors
        length = max(float(np.linalg.norm(axis)), TINY)
        left, right = np.cross(before, axis), np.cross(axis, after)
        angle = float(np.arctan2(length * (before @ right), left @ right))
        left, right = (normal / max(float(normal @ normal), TINY) for normal in (left, right))
        along = (-(before @ axis) * left - (after @ axis) * right) / length
        return angle, np.array([length * left, along, length * right])


class Coordination(_OfVectors):
    """How many atoms of one group atoms of another have around them: Σ 1 / (1 + (r/r₀)ⁿ) over pairs.

    That is the switching function of Iannuzzi, Laio and Parrinello, Phys. Rev. Lett. 90, 238302 (2003), with
    exponents n and 2n. Only the nearest image of a pair counts: r₀ has to be well below half the cell. [1]
    """

    name: ClassVar[str] = "coordination"

    centers: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Atoms whose neighbours are counted, from 0."""
    neighbors: tuple[NonNegativeInt, ...] = Field(min_length=1)
    """Atoms that are counted; an atom is not its own neighbour."""
    radius: PositiveFloat
    """The distance r₀ at which a pair counts one half. [Å]"""
    exponent: int = Field(default=6, ge=2, le=40)
    """How sharply a pair ceases to count, n. [1]"""

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if len(set(self.centers)) < len(self.centers) or len(set(self.neighbors)) < len(self.neighbors):
            raise ValueError("an atom is named twice in a group; name each once")
        if not len(self._pairs()):
            raise ValueError("no pair is left: centers and neighbors are the same atom")
        return self

    def _pairs(self) -> NDArray[np.int64]:
        pairs = [pair for pair in product(self.centers, self.neighbors) if pair[0] != pair[1]]
        return np.array(pairs, int).reshape(-1, 2)

    def _of(self, vectors: Array) -> tuple[float, Array]:
        distance = np.maximum(np.linalg.norm(vectors, axis=1), TINY)
        power = (distance / self.radius) ** self.exponent
        counted = 1 / (1 + power)
        slope = -self.exponent * power * counted**2 / distance
        return float(counted.sum()), (slope / distance)[:, None] * vectors


class Volume(Variable):
    """The volume of the cell. [Å³]"""

    name: ClassVar[str] = "volume"

    def read(self, structure: Atoms) -> Reading:
        volume = float(structure.get_volume())
        return Reading(volume, np.zeros((len(structure), 3)), volume * np.eye(3))

    def check(self, structure: Atoms) -> None:
        if not structure.pbc.all():
            formula = structure.get_chemical_formula()
            raise OptionError(f"variable 'volume': {formula} is not periodic in all directions, so it has no volume")


class Function(Variable):
    """A variable of your own: a function of the structure.

    It returns the value; or value and gradient, shape (atoms, 3); or these and the derivative by a symmetric strain,
    shape (3, 3). What it does not return is found by central differences, six calls for every atom that it depends
    on and twelve for the strain of a periodic structure.
    """

    name: ClassVar[str] = "function"

    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`; the module is imported on the worker."""
    atoms: tuple[NonNegativeInt, ...] | None = None
    """Atoms that it depends on, counted from 0, for the differences; None means all."""
    period: PositiveFloat | None = None
    """After how much it is the same again; None if it does not turn round. [unit of the variable]"""

    @property
    def repeats(self) -> float | None:
        return self.period

    def read(self, structure: Atoms) -> Reading:
        value, *known = self._called(structure)
        gradient = known[0] if known else self._gradient(structure)
        strain = known[1] if len(known) > 1 else self._strain(structure)
        return Reading(float(value), np.asarray(gradient, float), _symmetric(np.asarray(strain, float)))

    def check(self, structure: Atoms) -> None:
        if self.atoms and max(self.atoms) >= len(structure):
            formula = structure.get_chemical_formula()
            raise OptionError(f"variable '{self.function}': there is no atom {max(self.atoms)} in {formula}")

    def try_out(self, structure: Atoms) -> None:
        """Import the function and ask it once.

        Raises:
            OptionError: it cannot be imported, or does not return what it has to.
        """
        self._imported()
        try:
            reading = self.read(structure.copy())
        except Exception as error:  # somebody else's code
            raise OptionError(f"variable '{self.function}' failed: {type(error).__name__}: {error}") from error
        if reading.gradient.shape != (len(structure), 3) or not np.isfinite(reading.value):
            raise OptionError(f"variable '{self.function}' has to return a number, and a gradient of shape (atoms, 3)")

    def _called(self, structure: Atoms) -> tuple[Any, ...]:
        found = self._imported()(structure)
        return found if isinstance(found, tuple) else (found,)

    def _imported(self) -> Any:
        module, _, name = self.function.partition(":")
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise OptionError(
                f"variable '{self.function}' cannot be imported on the worker ({error}); install it there, or put its "
                "folder on PYTHONPATH"
            ) from error

    def _gradient(self, structure: Atoms) -> Array:
        gradient = np.zeros((len(structure), 3))
        for atom, axis in product(range(len(structure)) if self.atoms is None else self.atoms, range(3)):
            move = np.zeros((len(structure), 3))
            move[atom, axis] = 1.0
            gradient[atom, axis] = self._slope(
                lambda by, move=move: _placed(structure, structure.positions + by * move)
            )
        return gradient

    def _strain(self, structure: Atoms) -> Array:
        found = np.zeros((3, 3))
        for row, column in zip(*VOIGT, strict=True) if structure.pbc.all() else ():
            mode = np.zeros((3, 3))
            mode[row, column] = mode[column, row] = 1.0 if row == column else 0.5
            found[row, column] = found[column, row] = self._slope(lambda by, mode=mode: strained(structure, by * mode))
        return found

    def _slope(self, moved: Any, by: float = 1e-4) -> float:
        ahead, behind = (self._called(moved(step))[0] for step in (by, -by))
        return float((ahead - behind if self.period is None else self.difference(ahead, behind)) / (2 * by))


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

    def check(self, structure: Atoms) -> None:
        for variable in self.variables:
            variable.check(structure)


VARIABLES: tuple[type[Variable], ...] = (Distance, Angle, Dihedral, Coordination, Volume, Function, Combination)


def functions(variables: Sequence[Variable]) -> Iterator[Function]:
    """The functions of users' own among these variables, those in combinations too."""
    for variable in variables:
        if isinstance(variable, Function):
            yield variable
        elif isinstance(variable, Combination):
            yield from functions(variable.variables)


def values(structures: Sequence[Atoms], variable: Variable) -> Array:
    """A variable over a data set, shape (structures,). [unit of the variable]

    Raises:
        OptionError: a structure does not have this variable.
    """
    for structure in structures:
        variable.check(structure)
    return np.array([variable.value(structure) for structure in structures])


def nearest(vectors: Array, structure: Atoms) -> Array:
    """The shortest of all periodic images of each vector, shape (vectors, 3). [Å]"""
    if not structure.pbc.any():
        return vectors
    cell, inverse, images = _lattice(np.asarray(structure.cell).tobytes(), tuple(structure.pbc.tolist()))
    turned = np.round(vectors @ inverse) * structure.pbc
    around = (vectors - turned @ cell)[:, None] + images
    shortest = np.argmin((around**2).sum(axis=2), axis=1)
    return np.asarray(around[np.arange(len(vectors)), shortest])


def strained(structure: Atoms, strain: Array) -> Atoms:
    """A copy under a strain ε: positions and cell vectors r become r(1 + ε)."""
    deformation = np.eye(3) + strain
    moved = _placed(structure, structure.positions @ deformation)
    moved.set_cell(np.asarray(structure.cell) @ deformation)
    return moved


@lru_cache(maxsize=64)
def _lattice(cell: bytes, pbc: tuple[bool, ...]) -> tuple[Array, Array, Array]:
    """The reduced cell, in which the shortest image is a neighbour of the nearest; its inverse; the neighbours."""
    from ase.geometry import complete_cell, minkowski_reduce

    periodic = np.frombuffer(cell).reshape(3, 3) * np.array(pbc)[:, None]
    reduced = minkowski_reduce(complete_cell(periodic), pbc)[0]
    steps = np.array(list(product(*[(0, -1, 1) if turns else (0,) for turns in pbc])), float)
    return np.asarray(reduced), np.linalg.inv(reduced), steps @ reduced


def _placed(structure: Atoms, positions: Array) -> Atoms:
    moved = structure.copy()
    moved.positions = positions
    return moved


def _symmetric(matrix: Array) -> Array:
    return (matrix + matrix.T) / 2
