"""Selection by distance from the known structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from ase import Atoms
from pydantic import PositiveInt

from psiflow_core.components import Model, SelectionStrategy
from psiflow_core.strategies.descriptors import descriptors
from psiflow_core.structures import Array


class Diverse(SelectionStrategy):
    """Structures that differ most from the data and from each other: farthest-point selection.

    Gonzalez, Theor. Comput. Sci. 38, 293 (1985). Each structure is the one farthest from its nearest neighbour among
    the data and those chosen before it; a structure that does not differ from them is not chosen. Structures are
    compared by the mean features of the atoms of each element: the potential's, or, where it has none, histograms of
    the distances to neighbours.
    """

    name: ClassVar[str] = "diverse"

    count: PositiveInt
    """How many to choose, if so many differ."""

    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        points = descriptors([*candidates, *data], model)
        return _farthest(points[: len(candidates)], points[len(candidates) :], self.count)


def _farthest(points: Array, known: Array, count: int) -> list[int]:
    """Indices of points, shape (points, features), each the farthest from those that are known or chosen."""
    if not len(points):
        return []
    chosen: list[int] = []
    away = np.full(len(points), np.inf)
    for point in known if len(known) else points.mean(axis=0)[None]:
        away = np.minimum(away, _distances(points, point))
    if not len(known) and not away.any():
        return [0]  # they are all the same, and nothing is known yet
    while len(chosen) < min(count, len(points)) and away.max() > 0:
        number = int(np.argmax(away))
        if not chosen and not len(known):
            away = np.full(len(points), np.inf)  # the mean was only to begin with
        chosen.append(number)
        away = np.minimum(away, _distances(points, points[number]))
    return chosen


def _distances(points: Array, point: Array) -> Array:
    away = np.linalg.norm(points - point, axis=1)
    scale = np.linalg.norm(points, axis=1) + np.linalg.norm(point)
    return np.asarray(np.where(away > 1e-9 * scale, away, 0.0))  # round-off is no difference
