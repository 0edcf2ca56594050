"""Committees: several models whose spread is an uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from psiflow_core.answers import asked
from psiflow_core.components import Prediction, Predictor
from psiflow_core.structures import Array


class Committee(Predictor):
    """Several models, of one potential or of several: their mean, and the spread of their forces."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        self.members = list(members)
        self.cutoff = max(member.cutoff for member in self.members)

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        by_member = [asked(member, structures) for member in self.members]
        return [_mean(opinions) for opinions in zip(*by_member, strict=True)]

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        """Those of the first member: descriptors of different models have no common mean."""
        return self.members[0].features(structures)


def force_spread(forces: Array) -> Array:
    """The standard deviation of each atom's force over a committee, shape (atoms,), of (members, atoms, 3)."""
    about_mean = forces - forces.mean(axis=0)
    return np.asarray(np.sqrt((about_mean**2).sum(axis=2).mean(axis=0)))


def _mean(opinions: Sequence[Prediction]) -> Prediction:
    forces = np.stack([opinion.forces for opinion in opinions])
    stresses = [opinion.stress for opinion in opinions if opinion.stress is not None]
    return Prediction(
        energy=float(np.mean([opinion.energy for opinion in opinions])),
        forces=forces.mean(axis=0),
        stress=np.mean(stresses, axis=0) if len(stresses) == len(opinions) else None,
        deviation=force_spread(forces),
    )
