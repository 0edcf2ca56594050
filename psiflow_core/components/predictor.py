"""Energy functions: predictors, their sums, and the ASE calculator of a predictor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from psiflow_core.components.checking import an, blamed, number, reading, wrong
from psiflow_core.components.prediction import Prediction, features, predictions
from psiflow_core.constraints import unconstrained
from psiflow_core.errors import OptionError
from psiflow_core.structures import Array


class Summable(ABC):
    """An energy function: a trained potential, a predictor, or a bias without a memory. Sums of them are a `Sum`.

    ``a + b``, ``0.3 * a + 0.7 * b``, ``a - b`` and ``-a``; one of the two terms may be an ASE calculator.

    Raises:
        OptionError: a term is not an energy function, or a factor is not a number.
    """

    __array_ufunc__: ClassVar[None] = None
    """NumPy leaves ``np.float64(0.5) * a`` to this class."""

    @abstractmethod
    def predictor(self, device: str = "cpu") -> Predictor:
        """The predictor of its energy."""

    def __add__(self, other: Addend) -> Sum:
        return Sum([self, term(other)])

    def __radd__(self, other: Addend | int) -> Sum:
        return Sum([self]) if isinstance(other, int) and other == 0 else Sum([term(other), self])  # sum() begins with 0

    def __sub__(self, other: Addend) -> Sum:
        return Sum([self, term(other)], [1.0, -1.0])

    def __rsub__(self, other: Addend) -> Sum:
        return Sum([term(other), self], [1.0, -1.0])

    def __mul__(self, factor: float) -> Sum:
        return Sum([self], [_factor(factor)])

    def __rmul__(self, factor: float) -> Sum:
        return self * factor

    def __truediv__(self, divisor: float) -> Sum:
        return self * (1 / _factor(divisor))

    def __neg__(self) -> Sum:
        return self * -1.0


Addend: TypeAlias = Summable | Calculator


class Predictor(Summable):
    """A loaded model. `predict` works on batches; all other methods are based on it.

    It is read-only: copies of structures with its calculator share it. It has to be picklable, so that the
    calculator can be sent to other processes.
    """

    cutoff: float = 0.0
    """The largest distance at which the model sees a neighbour. [Å]"""

    @abstractmethod
    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        """Energies, forces and, for periodic structures, stresses, in the order of the input."""

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        """Per-atom descriptors that are invariant under rotation and translation, each of shape (atoms, features).

        Raises:
            NotImplementedError: the potential has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def predictor(self, device: str = "cpu") -> Predictor:
        """Itself, because it is loaded already."""
        return self

    def calculator(self) -> Calculator:
        """An ASE calculator based on this predictor."""
        return PredictorCalculator(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Predictor:
        return self


class PredictorCalculator(Calculator):
    """An ASE calculator based on a predictor; ``results["deviation"]`` holds a committee's force spread."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, predictor: Predictor, ask: Callable[[Atoms], Prediction] | None = None) -> None:
        super().__init__()
        self.predictor = predictor
        self._ask = ask or self._predict

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        if atoms is not None:
            self.atoms = atoms.copy()
        prediction = self._ask(self.atoms)
        self.results = {
            "energy": prediction.energy,
            "free_energy": prediction.energy,
            "forces": prediction.forces,
        }
        if prediction.stress is not None:
            self.results["stress"] = prediction.stress
        if prediction.deviation is not None:
            self.results["deviation"] = prediction.deviation

    def _predict(self, atoms: Atoms) -> Prediction:
        return asked(self.predictor, [atoms])[0]


class Answering(Predictor):
    """A predictor of a plugin. It gets copies of structures; its answers are checked, and errors name the plugin."""

    def __init__(self, predictor: object, who: str) -> None:
        self.inner: Predictor = an(predictor, Predictor, who)
        self.who = who
        with reading(who):
            self.cutoff = number(self.inner.cutoff, "a cutoff", who)
        if not 0 <= self.cutoff < math.inf:
            raise wrong(who, f"has a cutoff of {self.cutoff} Å")

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        with blamed(self.who):
            return predictions(self.inner.predict(copies(structures)), structures, self.who)

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        with blamed(self.who):
            return features(self.inner.features(copies(structures)), structures, self.who)


def asked(predictor: Predictor, structures: Sequence[Atoms]) -> list[Prediction]:
    """The checked predictions of any predictor, also of a user's script; raises `WrongAnswer`."""
    found = predictor.predict(structures)
    if isinstance(predictor, Answering):
        return found
    return predictions(found, structures, f"predictor {type(predictor).__name__}")


def copies(structures: Sequence[Atoms]) -> list[Atoms]:
    return [structure.copy() for structure in structures]


class CalculatorPredictor(Predictor):
    """Any ASE calculator as a predictor, one structure after the other."""

    def __init__(self, calculator: Calculator) -> None:
        self._calculator = calculator

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [self._one(atoms) for atoms in structures]

    def _one(self, atoms: Atoms) -> Prediction:
        wanted = ["energy", "forces"]
        if atoms.pbc.all() and "stress" in self._calculator.implemented_properties:
            wanted.append("stress")
        self._calculator.calculate(unconstrained(atoms), wanted, all_changes)
        results = self._calculator.results
        stress = np.array(results["stress"]) if "stress" in wanted else None
        return Prediction(results["energy"], np.array(results["forces"]), stress)


class Sum(Predictor):
    """A sum of energies: a potential and a bias, a baseline and a correction; with weights, a mixture.

    The committee spread is the spread of each committee times the absolute value of its weight, summed over committees.

    Args:
        terms: energy functions; a sum among them is replaced by its terms.
        weights: one for each term; 1 by default.

    Raises:
        OptionError: a term is not an energy function, or the numbers of weights and terms differ.
    """

    def __init__(self, terms: Sequence[Addend], weights: Sequence[float] | None = None) -> None:
        given = [1.0] * len(terms) if weights is None else [_factor(weight) for weight in weights]
        if len(given) != len(terms) or not terms:
            raise OptionError(f"{len(given)} weights for {len(terms)} terms; give one for each of at least one")
        flat = [part for weight, one in zip(given, terms, strict=True) for part in _parts(weight, term(one))]
        self.weights = [weight for weight, _ in flat]
        self.terms = [one for _, one in flat]

    @cached_property
    def cutoff(self) -> float:  # type: ignore[override]  # terms are loaded on demand
        """The largest cutoff of its terms. [Å]"""
        return max(one.cutoff for one in self._loaded)

    def predictor(self, device: str = "cpu") -> Predictor:
        """The sum of its terms' predictors on a device."""
        return Sum([one.predictor(device) for one in self.terms], self.weights)

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        by_term = [asked(one, structures) for one in self._loaded]
        return [total(parts, self.weights) for parts in zip(*by_term, strict=True)]

    @cached_property
    def _loaded(self) -> list[Predictor]:
        return [one.predictor() for one in self.terms]


def term(given: object) -> Summable:
    """An energy function, unchanged; an ASE calculator as a predictor. Raises `OptionError` for anything else."""
    if isinstance(given, Summable):
        return given
    if isinstance(given, PredictorCalculator):
        return given.predictor
    if isinstance(given, Calculator):
        return CalculatorPredictor(given)
    raise OptionError(
        f"{given!r:.80} is no energy function; give a trained potential, a predictor, a bias or an ASE calculator"
    )


def _parts(weight: float, one: Summable) -> list[tuple[float, Summable]]:
    if not isinstance(one, Sum):
        return [(weight, one)]
    return [(weight * inner, part) for inner, part in zip(one.weights, one.terms, strict=True)]


def _factor(given: object) -> float:
    if not isinstance(given, Real) or isinstance(given, bool) or not math.isfinite(given):
        raise OptionError(f"{given!r:.80} is not a finite number; multiply an energy function by a finite number only")
    return float(given)


def total(parts: Sequence[Prediction], weights: Sequence[float] | None = None) -> Prediction:
    """The weighted sum of predictions; it has a stress only if every part has one."""
    weighted = list(zip([1.0] * len(parts) if weights is None else weights, parts, strict=True))
    stresses = [weight * part.stress for weight, part in weighted if part.stress is not None]
    deviations = [abs(weight) * part.deviation for weight, part in weighted if part.deviation is not None]
    return Prediction(
        energy=float(sum(weight * part.energy for weight, part in weighted)),
        forces=np.sum([weight * part.forces for weight, part in weighted], axis=0),
        stress=np.sum(stresses, axis=0) if len(stresses) == len(parts) else None,
        deviation=np.sum(deviations, axis=0) if deviations else None,
    )
