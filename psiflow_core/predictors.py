"""Predictors made of predictors, and the ASE calculator that any predictor gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from psiflow_core.answers import asked
from psiflow_core.components import Prediction, Predictor
from psiflow_core.structures import Array


class Committee(Predictor):
    """Several models of one potential: their mean, and the spread of their forces."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        self.members = list(members)
        self.cutoff = max(member.cutoff for member in self.members)

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        by_member = [asked(member, structures) for member in self.members]
        return [_mean(opinions) for opinions in zip(*by_member, strict=True)]

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        return self.members[0].features(structures)


class Sum(Predictor):
    """Energies added: a potential and a bias, a baseline and a correction; with weights, a mixture."""

    def __init__(self, terms: Sequence[Predictor], weights: Sequence[float] | None = None) -> None:
        self.terms = list(terms)
        self.weights = [1.0] * len(self.terms) if weights is None else list(weights)
        if len(self.weights) != len(self.terms):
            raise ValueError(f"{len(self.weights)} weights for {len(self.terms)} terms; give one for each")
        self.cutoff = max(term.cutoff for term in self.terms)

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        by_term = [asked(term, structures) for term in self.terms]
        return [_total(parts, self.weights) for parts in zip(*by_term, strict=True)]


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
        self._calculator.calculate(atoms.copy(), wanted, all_changes)
        results = self._calculator.results
        stress = np.array(results["stress"]) if "stress" in wanted else None
        return Prediction(results["energy"], np.array(results["forces"]), stress)


class PredictorCalculator(Calculator):
    """An ASE calculator that asks a predictor; ``results["deviation"]`` holds a committee's force spread."""

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


def _total(parts: Sequence[Prediction], weights: Sequence[float]) -> Prediction:
    weighted = list(zip(weights, parts, strict=True))
    stresses = [weight * part.stress for weight, part in weighted if part.stress is not None]
    deviations = [abs(weight) * part.deviation for weight, part in weighted if part.deviation is not None]
    return Prediction(
        energy=float(sum(weight * part.energy for weight, part in weighted)),
        forces=np.sum([weight * part.forces for weight, part in weighted], axis=0),
        stress=np.sum(stresses, axis=0) if len(stresses) == len(parts) else None,
        deviation=np.sum(deviations, axis=0) if deviations else None,
    )
