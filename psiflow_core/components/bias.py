"""Biases: the contract of an energy added to the potential of a walker, and of its memory of the walker."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from ase import Atoms

from psiflow_core.components.named import Named
from psiflow_core.components.prediction import Prediction
from psiflow_core.components.predictor import Predictor, Summable
from psiflow_core.errors import OptionError
from psiflow_core.kinds import Kind
from psiflow_core.structures import Array, Plain


@dataclass(frozen=True)
class Memory:
    """The memory that one bias has of one walker. It changes only at the monitor's checks."""

    step: int = 0
    """The walker's step at the last check."""
    previous: int = 0
    """The walker's step at the check before."""
    origin: float | None = None
    """The initial centre of a moving restraint. [unit of the variable]"""
    hills: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Centre and height of each hill, shape (hills, variables + 1). [units of the variables, eV]"""
    last: int = -1
    """The walker's step when the last hill was put; −1 without any."""
    files: dict[str, str] = field(default_factory=dict)
    """The content of a program's files for the walker, by file name. Files are only appended to."""
    files_before: dict[str, int] | None = None
    """The length of each file before the last check, in characters; None without a check."""
    temperature: float | None = None
    """The sampler's temperature; None without a thermostat. [K]"""

    def before(self) -> Memory:
        """The memory before the last check."""
        fresh = self.last == self.step and len(self.hills) > 0
        lengths = self.files_before
        files = self.files if lengths is None else {name: self.files[name][:length] for name, length in lengths.items()}
        return replace(self, step=self.previous, hills=self.hills[:-1] if fresh else self.hills, files=files)

    def to_plain(self) -> Plain:
        return {**vars(self), "hills": self.hills.tolist()}

    @classmethod
    def from_plain(cls, plain: Plain) -> Self:
        hills = np.array(plain["hills"], float)
        return cls(**{**plain, "hills": hills if len(hills) else np.zeros((0, 0))})


class Bias(Named, Summable):
    """An energy added to the potential that moves a walker. Its knowledge of the walker's past is in its memory.

    A bias without a memory can be added to potentials: ``model + bias``.
    """

    kind: ClassVar[Kind] = "bias"

    @abstractmethod
    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        """Energy [eV], forces [eV/Å] and, if the structure is periodic in all directions, stress [eV/Å³]."""

    def check(self, structures: Sequence[Atoms]) -> None:
        """Refuse structures that it does not fit, by plain data alone: this runs in the driver.

        Raises:
            OptionError: what is wrong and what to do.
        """

    def try_out(self, structures: Sequence[Atoms], temperature: float | None) -> None:
        """On a worker, before anything runs: refuse what cannot work there; raises `OptionError`.

        Args:
            temperature: the sampler's; None for one without a thermostat. [K]
        """

    def begin(self, memory: Memory, structure: Atoms) -> Memory:
        """The memory before the first step of a segment."""
        return memory

    def look(self, memory: Memory, structure: Atoms, step: int, temperature: float | None) -> Memory:
        """The memory after a check, for a structure accepted by the monitor.

        Args:
            step: the walker's.
            temperature: the sampler's. [K]
        """
        return replace(memory, step=step, previous=memory.step)

    def predictor(self, device: str = "cpu") -> Predictor:
        """The predictor of its energy alone.

        Raises:
            OptionError: it has a memory of its walker, so that its energy is not a function of the structure.
        """
        if type(self).begin is not Bias.begin or type(self).look is not Bias.look:
            raise OptionError(
                f"bias '{self.name}' remembers its walker, and cannot be a term of a sum; give it as bias=…"
            )
        return BiasPredictor(self)


class BiasPredictor(Predictor):
    """A bias as a predictor, with a fixed memory of a walker."""

    def __init__(self, bias: Bias, memory: Memory | None = None) -> None:
        self._bias = bias
        self._memory = memory or Memory()

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [self._bias.evaluate(structure, self._memory) for structure in structures]


@dataclass(frozen=True)
class Place:
    """The progress of a walker in its campaign, before a segment."""

    walker: int
    """Its number in its group."""
    walkers: int
    """How many there are in its group."""
    stage: int
    """The fraction of its path to reach in this segment."""
    step: int
    """Its steps since it started."""
    steps: int
    """Steps of the segment."""


class Scheme(Named):
    """A bias that differs between walkers, or between the segments of a walker. The driver asks for it."""

    kind: ClassVar[Kind] = "bias"

    @abstractmethod
    def at(self, place: Place) -> Bias:
        """The bias of a walker in its next segment."""

    def check(self, structures: Sequence[Atoms]) -> None:
        """Refuse structures that it does not fit, by plain data alone; raises `OptionError`."""
