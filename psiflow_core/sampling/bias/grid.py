"""A tabulated bias."""

from __future__ import annotations

from functools import cached_property
from math import isclose, prod
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from psiflow_core.components import Memory, Variable
from psiflow_core.sampling.bias.along import AlongVariables
from psiflow_core.sampling.variables import AnyVariable
from psiflow_core.structures import Array

if TYPE_CHECKING:
    from scipy.interpolate import BSpline


class Grid(AlongVariables):
    """Energies on an even grid of one to three variables, with spline interpolation.

    Outside the grid the energy is that of its edge, without a force: set walls. A variable that turns round and whose
    whole turn is tabulated has no edge; its energies at both ends must be the same.
    """

    name: ClassVar[str] = "grid"

    variables: tuple[AnyVariable, ...] = Field(min_length=1, max_length=3)
    """One to three."""
    start: tuple[float, ...]
    """Of each variable, where the grid begins. [unit of the variable]"""
    stop: tuple[float, ...]
    """Where it ends. [unit of the variable]"""
    points: tuple[int, ...]
    """Along each variable, both ends included."""
    energies: tuple[float, ...] = Field(max_length=100_000)
    """At all points, those along the last variable side by side. [eV]"""
    interpolation: Literal["linear", "cubic"] = "cubic"
    """Under a linear one forces jump at each point."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for name in ("start", "stop", "points"):
            if len(getattr(self, name)) != len(self.variables):
                raise ValueError(f"{len(getattr(self, name))} numbers in {name} for {len(self.variables)} variables")
        if len(self.energies) != prod(self.points):
            raise ValueError(f"{len(self.energies)} energies for {' x '.join(map(str, self.points))} points")
        if min(self.points) <= self._order:
            raise ValueError(
                f"points={list(self.points)}: a {self.interpolation} grid needs {self._order + 1} at least"
            )
        for n, (start, stop) in enumerate(zip(self.start, self.stop, strict=True)):
            if not start < stop:
                raise ValueError(f"start={start} must be below stop={stop}")
            first, last = (np.take(self._table, end, axis=n) for end in (0, -1))
            if self._closed(n) and not np.allclose(first, last, rtol=0, atol=1e-9):
                raise ValueError(f"'{self.variables[n].name}' turns round: energies at both ends must be the same")
        return self

    @property
    def along(self) -> tuple[Variable, ...]:
        return self.variables

    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        inside, within = zip(*(self._placed(n, float(value)) for n, value in enumerate(values)), strict=True)
        orders = np.eye(len(values), dtype=int)
        slopes = [self._contracted(inside, order) if free else 0.0 for order, free in zip(orders, within, strict=True)]
        return self._contracted(inside, np.zeros(len(values), int)), np.array(slopes)

    @property
    def _order(self) -> int:
        return 3 if self.interpolation == "cubic" else 1

    @property
    def _table(self) -> Array:
        return np.array(self.energies, float).reshape(self.points)

    def _closed(self, n: int) -> bool:
        turn = self.variables[n].repeats
        return turn is not None and isclose(self.stop[n] - self.start[n], turn, rel_tol=1e-9)

    def _placed(self, n: int, value: float) -> tuple[float, bool]:
        """A variable's value inside the grid, and whether it was there by itself."""
        start, stop = self.start[n], self.stop[n]
        middle = (start + stop) / 2
        near = middle + self.variables[n].difference(value, middle)
        return min(max(near, start), stop), self._closed(n) or start <= near <= stop

    @cached_property
    def _splines(self) -> tuple[list[Array], Array]:
        """Knots along each variable, and the coefficients of the product of B-splines."""
        from scipy.interpolate import make_interp_spline

        knots, coefficients = [], self._table
        for n, points in enumerate(self.points):
            places = np.linspace(self.start[n], self.stop[n], points)
            ends = "periodic" if self._closed(n) and self._order == 3 else None
            front = np.moveaxis(coefficients, n, 0)
            if ends:
                front = np.concatenate([front[:-1], front[:1]])  # equal to the last bit
            spline: BSpline = make_interp_spline(places, front, k=self._order, bc_type=ends)
            knots.append(spline.t)
            coefficients = np.moveaxis(spline.c, 0, n)
        return knots, coefficients

    def _contracted(self, at: tuple[float, ...], derivatives: Array) -> float:
        from scipy.interpolate import BSpline

        knots, rest = self._splines
        for knot, value, derivative in zip(knots, at, derivatives, strict=True):
            rest = BSpline(knot, rest, self._order)(value, nu=int(derivative))
        return float(rest)
