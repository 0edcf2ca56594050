"""Springs and walls along a collective variable."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
from ase import Atoms
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Memory
from psiflow_core.sampling.bias.along import AlongOne
from psiflow_core.structures import Array


class Harmonic(AlongOne):
    """A spring: ½ k (s − s₀)²."""

    name: ClassVar[str] = "harmonic"

    center: float
    """Where the variable is held, s₀. [unit of the variable]"""
    stiffness: PositiveFloat
    """Its stiffness, k. [eV/unit of the variable²]"""

    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        return _spring(self.variable.difference(values, self.center), self.stiffness)


class MovingHarmonic(AlongOne):
    """A spring whose centre moves evenly with a walker's steps, and stays where it ends.

    It moves at the monitor's checks: between two of them it is at rest.
    """

    name: ClassVar[str] = "moving"

    start: float | None = None
    """Where the centre begins; None: where the walker is. [unit of the variable]"""
    stop: float
    """Where it ends. [unit of the variable]"""
    steps: PositiveInt
    """In how many steps of the walker it comes there."""
    stiffness: PositiveFloat
    """k of ½ k (s − s₀)². [eV/unit of the variable²]"""
    after: NonNegativeInt = 0
    """Steps of the walker, from its start, before the spring begins to act."""

    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        if memory.step < self.after:
            return 0.0, np.zeros(1)
        return _spring(self.variable.difference(values, self.center(memory)), self.stiffness)

    def center(self, memory: Memory) -> float:
        """Where the centre is. [unit of the variable]"""
        share = min((memory.step - self.after) / self.steps, 1.0)
        start = self.start
        if start is None:
            start = self.stop if memory.origin is None else memory.origin
        return start + share * (self.stop - start)

    def begin(self, memory: Memory, structure: Atoms) -> Memory:
        return self._set_out(memory, structure) if memory.step <= self.after else memory

    def look(self, memory: Memory, structure: Atoms, step: int, temperature: float | None) -> Memory:
        seen = super().look(memory, structure, step, temperature)
        return self._set_out(seen, structure) if memory.step < self.after <= step else seen

    def _set_out(self, memory: Memory, structure: Atoms) -> Memory:
        """From where the walker is, the shortest way round."""
        away = self.variable.difference(self.variable.value(structure), self.stop)
        return replace(memory, origin=float(self.stop + away))


class _Wall(AlongOne):
    edge: float
    """Where it begins. [unit of the variable]"""
    stiffness: PositiveFloat
    """k of ½ k (s − edge)² beyond it. [eV/unit of the variable²]"""

    @model_validator(mode="after")
    def _has_a_beyond(self) -> Self:
        if self.variable.repeats is not None:
            raise ValueError(
                f"'{self.variable.name}' turns round, so nothing is beyond a wall; use 'harmonic' or 'grid'"
            )
        return self


class UpperWall(_Wall):
    """A spring that acts above an edge, and nothing below."""

    name: ClassVar[str] = "upper-wall"

    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        return _spring(np.maximum(values - self.edge, 0.0), self.stiffness)


class LowerWall(_Wall):
    """A spring that acts below an edge, and nothing above."""

    name: ClassVar[str] = "lower-wall"

    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        return _spring(np.minimum(values - self.edge, 0.0), self.stiffness)


def _spring(away: Array, stiffness: float) -> tuple[float, Array]:
    return 0.5 * stiffness * float(away @ away), stiffness * away
