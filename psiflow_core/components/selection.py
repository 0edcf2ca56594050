"""Selection strategies: the contract of choosing structures that are worth a label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ase import Atoms

from psiflow_core.components.checking import count, each
from psiflow_core.components.named import Named
from psiflow_core.components.prediction import Prediction
from psiflow_core.errors import OptionError, WrongAnswer
from psiflow_core.kinds import Kind
from psiflow_core.structures import Array


@dataclass(frozen=True)
class Met:
    """A structure that a walker of a campaign met, with the driver's knowledge of it."""

    structure: str
    """Content hash."""
    deviation: float | None
    """The committee's largest force spread, by the newest model that has looked at it; None for a single model.
    [eV/Å]"""


class Model(Protocol):
    """The methods of a model that a strategy may call: of a `TrainedPotential`, or any `Predictor`."""

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        """Energies, forces, and a committee's force spread."""

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        """Invariant descriptors of atoms; raises `NotImplementedError` without any."""


class SelectionStrategy(Named):
    """A choice among structures, for user-written loops. A campaign needs an `OnlineStrategy`."""

    kind: ClassVar[Kind] = "selection"

    @abstractmethod
    def indices(self, candidates: Sequence[Atoms], data: Sequence[Atoms], model: Model | None) -> list[int]:
        """The indices of the candidates that are worth a label, the most urgent first, each at most once.

        The same arguments give the same answer, in every process.

        Args:
            data: structures that have a label.
            model: a `TrainedPotential` that knows them, or any predictor; None if there is none yet.

        Raises:
            OptionError: it needs a model, or a method that the model does not have.
        """

    def choose(self, candidates: Any, data: Sequence[Atoms] = (), model: Model | None = None) -> list[Atoms]:
        """The chosen structures, the most urgent first.

        Args:
            candidates: structures, or trajectories, of which every kept frame is a candidate.
            data: structures that have a label.
            model: a `TrainedPotential` that knows them, or another predictor.

        Raises:
            OptionError: a candidate is neither; or the strategy needs a model, or a method that the model lacks.
            WrongAnswer: the strategy's plugin breaks its contract.
        """
        structures = list(structures_in(candidates))
        found = self.indices(structures, list(structures_in(data)), model)
        return [structures[number] for number in checked(found, len(structures), f"selection '{self.name}'")]


class OnlineStrategy(SelectionStrategy):
    """A choice that a campaign's driver can make too, for one structure at a time and without the model."""

    @abstractmethod
    def wanted(self, met: Met) -> bool:
        """Whether a structure is worth a label. Called when a walker has met it, and again for every newer model."""

    @abstractmethod
    def priority(self, met: Met) -> float:
        """Its place in the queue for a label: the higher, the earlier."""


def structures_in(given: Any) -> Iterator[Atoms]:
    """Every structure of a user's argument: structures, trajectories with frames, lists of these.

    Raises:
        OptionError: the argument contains something else.
    """
    if isinstance(given, Atoms):
        yield given
    elif hasattr(given, "frames"):
        yield from given.frames or [given.structure]
    elif hasattr(given, "__iter__") and not isinstance(given, str | bytes | dict):
        yield from (structure for one in given for structure in structures_in(one))
    else:
        raise OptionError(f"{given!r} is neither a structure nor a trajectory; read files with ase.io.read")


def checked(found: Any, candidates: int, who: str) -> list[int]:
    """The checked indices of a strategy; raises `WrongAnswer`."""
    if not isinstance(found, Sequence) and not hasattr(found, "__len__"):
        raise WrongAnswer(f"{who} returned a {type(found).__name__} where its contract asks for a list of indices")
    numbers = [count(one, "an index", who) for one in each(found, len(found), "indices", who)]
    if len(set(numbers)) < len(numbers):
        raise WrongAnswer(f"{who} has chosen a candidate twice")
    if any(number >= candidates for number in numbers):
        raise WrongAnswer(f"{who} has chosen candidate {max(numbers)} of {candidates}; they are counted from 0")
    return numbers
