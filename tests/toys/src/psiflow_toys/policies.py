"""A collective variable, a bias and a selection strategy, as a plugin offers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from ase import Atoms
from pydantic import Field, PositiveFloat, PositiveInt

from psiflow_core.components import Memory, Met, Model, OnlineStrategy, Prediction, Reading, Variable
from psiflow_core.sampling.bias import AlongOne
from psiflow_core.sampling.variables import nearest
from psiflow_core.structures import Array, digest


class Spread(Variable):
    """The mean square distance of all atoms from the first. [Å²]"""

    name: ClassVar[str] = "toy-spread"

    def read(self, structure: Atoms) -> Reading:
        away = nearest(structure.positions[1:] - structure.positions[0], structure)
        count = len(structure)
        gradient = 2 / count * np.concatenate([-away.sum(axis=0)[None], away])
        return Reading(float((away**2).sum()) / count, gradient, 2 / count * away.T @ away)


def height(structure: Atoms) -> float:
    """A user's own function: how far the second atom is above the first. [Å]"""
    apart: float = nearest(structure.positions[1:2] - structure.positions[:1], structure)[0, 2]
    return apart


class Pen(AlongOne):
    """A wall that tightens with every check: ½ k max(0, s − edge + pace·checks)²."""

    name: ClassVar[str] = "toy-pen"

    edge: float
    """Where it begins at first. [unit of the variable]"""
    stiffness: PositiveFloat
    """Its stiffness, k. [eV/unit of the variable²]"""
    pace: float = 0.0
    """By how much the edge comes nearer in 100 steps. [unit of the variable]"""

    def of(self, values: Array, memory: Memory) -> tuple[float, Array]:
        beyond = np.maximum(values - self.edge + self.pace * memory.step / 100, 0.0)
        return 0.5 * self.stiffness * float(beyond @ beyond), self.stiffness * beyond


class Alternate(OnlineStrategy):
    """Every structure whose hash is divisible by a number; what the model says does not count."""

    name: ClassVar[str] = "toy-alternate"

    divisor: PositiveInt = Field(default=2, le=100)
    """1 wants all of them. [1]"""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        return [number for number, atoms in enumerate(candidates) if self.wanted(Met(digest(atoms), None))]

    def wanted(self, met: Met) -> bool:
        return int(met.structure, 16) % self.divisor == 0

    def priority(self, met: Met) -> float:
        return float(int(met.structure[:8], 16))


# Each of these breaks one promise; no hook offers them -------------------------------------------------------


class WrongGradient(Spread):
    """Its gradient is twice that of its value."""

    def read(self, structure: Atoms) -> Reading:
        sound = super().read(structure)
        return sound._replace(gradient=2 * sound.gradient)


class WrongStrain(Spread):
    """It does not say how it changes with the cell."""

    def read(self, structure: Atoms) -> Reading:
        return super().read(structure)._replace(strain=np.zeros((3, 3)))


class SeesTheOrigin(Spread):
    """The place of the first atom counts."""

    def read(self, structure: Atoms) -> Reading:
        value, gradient, strain = super().read(structure)
        gradient = gradient.copy()
        gradient[0, 0] += 1.0
        at = np.outer(structure.positions[0], [1.0, 0.0, 0.0])
        return Reading(value + float(structure.positions[0, 0]), gradient, strain + (at + at.T) / 2)


class ForgetsImages(Spread):
    """Distances through the walls of a cell are not the nearest."""

    def read(self, structure: Atoms) -> Reading:
        apart = structure.copy()
        apart.pbc = False
        return super().read(apart)


class HalfForces(Pen):
    """It pushes half as hard as its energy says."""

    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        sound = super().evaluate(structure, memory)
        return Prediction(sound.energy, sound.forces / 2, sound.stress)


class NoStress(Pen):
    """It says nothing of the stress."""

    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        sound = super().evaluate(structure, memory)
        return Prediction(sound.energy, sound.forces)


asked: list[int] = []


class CountsQuestions(Pen):
    """It becomes stronger with every question, whatever its memory says."""

    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        asked.append(memory.step)
        sound = super().evaluate(structure, memory)
        factor = 1 + 1e-7 * len(asked)
        return Prediction(
            factor * sound.energy, factor * sound.forces, None if sound.stress is None else factor * sound.stress
        )


class CannotGoBack(Pen):
    """What a look changes acts at once."""

    def look(self, memory: Memory, structure: Atoms, step: int, temperature: float | None) -> Memory:
        return replace(super().look(memory, structure, step, temperature), previous=step)


class ChoosesTwice(Alternate):
    """It names the first candidate twice."""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        return [0, 0] if candidates else []


class CountsFromOne(Alternate):
    """Its indices begin at 1."""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        return [len(candidates)] if candidates else []


class DrawsAnew(Alternate):
    """It draws lots that nobody can draw again."""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        return np.random.default_rng().permutation(len(candidates)).tolist()


class TakesAll(Alternate):
    """It does not keep to its count."""

    count: PositiveInt = 3
    """How many."""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        return list(range(len(candidates)))


class ChangesItsMind(Alternate):
    """A campaign gets another answer each time."""

    def priority(self, met: Met) -> float:
        return float(np.random.default_rng().random())
