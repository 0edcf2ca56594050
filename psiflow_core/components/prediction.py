"""Predictions, and the checks of predictors' answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from psiflow_core.components.checking import an, array, each, number, reading, wrong
from psiflow_core.structures import Array, Plain


@dataclass(frozen=True)
class Prediction:
    """A prediction for a structure."""

    energy: float
    """[eV]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array | None = None
    """ASE's sign and Voigt order, shape (6,); None unless periodic in all three directions. [eV/Å³]"""
    deviation: Array | None = None
    """Spread of the forces in a committee, shape (atoms,): the standard deviation of each atom's force
    over the members, as in Zhang et al., Phys. Rev. Mater. 3, 023804 (2019). None without a committee. [eV/Å]"""

    def to_plain(self) -> Plain:
        return {
            "energy": float(self.energy),
            "forces": self.forces.tolist(),
            "stress": None if self.stress is None else self.stress.tolist(),
            "deviation": None if self.deviation is None else self.deviation.tolist(),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Prediction:
        stress, deviation = (
            None if plain[name] is None else np.asarray(plain[name], float) for name in ("stress", "deviation")
        )
        forces = np.asarray(plain["forces"], float)
        return cls(plain["energy"], forces if forces.size else forces.reshape(-1, 3), stress, deviation)


def finite(prediction: Prediction) -> bool:
    """Whether energy, forces and the committee's spread, if any, are finite numbers."""
    spread = 0.0 if prediction.deviation is None else prediction.deviation
    return all(bool(np.isfinite(value).all()) for value in (prediction.energy, prediction.forces, spread))


def checked_physics(found: Any, structure: Atoms, who: str) -> tuple[float, Array, Array | None]:
    """Energy, forces and stress of a label or a prediction."""
    energy = number(found.energy, "an energy", who)
    forces = array(found.forces, (len(structure), 3), "forces", who)
    if found.stress is None:
        return energy, forces, None
    stress = array(found.stress, (6,), "a stress", who)
    if not structure.pbc.all():
        what = structure.get_chemical_formula()
        raise wrong(who, f"returned a stress for {what}, which is not periodic in all directions: it has to be None")
    return energy, forces, stress


def predictions(found: object, structures: Sequence[Atoms], who: str) -> list[Prediction]:
    """The checked predictions of a predictor for structures; they need not be finite.

    Raises:
        WrongAnswer: there is not one prediction for each structure, with arrays of the right shape.
    """
    with reading(who):
        given = each(found, len(structures), "predictions", who)
        return [_prediction(an(one, Prediction, who), atoms, who) for one, atoms in zip(given, structures, strict=True)]


def _prediction(found: Prediction, structure: Atoms, who: str) -> Prediction:
    physics = checked_physics(found, structure, who)
    if found.deviation is None:
        return Prediction(*physics)
    return Prediction(*physics, array(found.deviation, (len(structure),), "a deviation", who))


def features(found: object, structures: Sequence[Atoms], who: str) -> list[Array]:
    """The checked descriptors of a predictor for structures.

    Raises:
        WrongAnswer: they are not finite, or not of shape (atoms, features) with one number of features.
    """
    with reading(who):
        given = each(found, len(structures), "arrays of features", who)
        width = _width(given[0]) if given else 0
        sizes = [(len(atoms), width) for atoms in structures]
        checked = [array(one, size, "features", who) for one, size in zip(given, sizes, strict=True)]
    if not all(np.isfinite(one).all() for one in checked):
        raise wrong(who, "returned features that are not finite")
    return checked


def _width(found: object) -> int:
    """The number of features per atom in the first array."""
    shape: tuple[int, ...] = getattr(found, "shape", ())
    return int(shape[1]) if len(shape) == 2 else 0
