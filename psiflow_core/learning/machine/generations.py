"""Generations of the committee, their members, and their predictions for all labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from psiflow_core.identity import Typed


class Weights(Typed):
    """A file of weights."""

    path: str
    """Relative to the campaign's folder, if it is inside."""
    digest: str
    """The SHA-256 of its content."""


class TrainedMember(Typed):
    """A trained member of a committee."""

    model: Weights
    errors: dict[str, float]
    """As `psiflow_core.components.TrainingResult.errors`; empty for a given model."""
    steps: int = 0
    history: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0


class Predictions(Typed):
    """A file of predictions for all labels."""

    file: str
    """Relative to the campaign's folder."""
    digest: str
    """The SHA-256 of its content."""
    generations: tuple[int, ...]
    """The predicting generations, in the order of the file."""
    potentials: tuple[str, ...] = ()
    """The potentials whose members also predicted separately, after the generations; none for a single potential."""
    candidates: tuple[int, ...]
    """The labelled candidates, in the order of the file."""


@dataclass
class Generation:
    """One training of the whole committee."""

    number: int
    training: tuple[int, ...]
    """Candidates that it was trained on."""
    validation: tuple[int, ...]
    final: bool
    committee: int
    """The number of members once it is complete."""
    members: dict[int, TrainedMember] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all members are trained."""
        return len(self.members) == self.committee

    @property
    def known(self) -> int:
        """The number of labels it knows."""
        return len(self.training) + len(self.validation)

    @cached_property
    def candidates(self) -> frozenset[int]:
        """The candidates whose labels it knows."""
        return frozenset((*self.training, *self.validation))

    @property
    def models(self) -> list[Weights]:
        """Each member's weights, in the order of the members."""
        return [self.members[number].model for number in sorted(self.members)]

    @property
    def assessed(self) -> bool:
        """Whether the errors of all its members are known; the errors of a given model are not."""
        return all("force_rmse" in member.errors for member in self.members.values())

    def mean_error(self, name: str) -> float:
        """An error averaged over the members."""
        return sum(member.errors[name] for member in self.members.values()) / len(self.members)
