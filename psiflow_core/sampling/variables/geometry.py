"""Distances, angles, torsions and neighbours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import ClassVar, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from psiflow_core.components import Reading, Variable
from psiflow_core.errors import OptionError
from psiflow_core.sampling.variables.images import nearest, symmetric
from psiflow_core.structures import Array

TINY = 1e-12
"""Avoids a division by zero where a direction is undefined, as for three atoms in a line."""


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
        return Reading(value, gradient, symmetric(slopes.T @ vectors))

    def check(self, structures: Sequence[Atoms]) -> None:
        highest = int(self._pairs().max())
        for structure in structures:
            if highest >= len(structure):
                raise OptionError(
                    f"variable '{self.name}': there is no atom {highest} in {structure.get_chemical_formula()}, which "
                    f"has {len(structure)} atoms; they are counted from 0"
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
        return 2 * np.pi

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
