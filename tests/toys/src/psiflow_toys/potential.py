"""Ridge regression on Gaussians of the pair distances, as a potential."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms
from pydantic import Field, NonNegativeFloat, PositiveFloat

from psiflow_core.components import Potential, Prediction, Predictor, TrainingResult, TrainingTask
from psiflow_core.errors import Interrupted, TrainingFailed
from psiflow_core.files import write_atomically
from psiflow_core.potentials.residuals import residuals, training_errors
from psiflow_core.structures import label_of
from psiflow_toys.pairs import Array, Pairs, switch

STEP = 0.1
"""Between two chances to stop. [s]"""


class ToyPotential(Potential):
    """Each pair of species has its own curve, a sum of Gaussians of the distance; the fit is linear."""

    name: ClassVar[str] = "toy"

    cutoff: PositiveFloat = 5.0
    """Pairs farther apart do not count. [Å]"""
    basis: int = Field(default=20, ge=2, le=100)
    """Gaussians for each pair of species. [1]"""
    ridge: PositiveFloat = 0.01
    """How strongly weights are held to the parent's, or to zero. [1]"""
    delay: NonNegativeFloat = 0.0
    """Time that a training takes. [s]"""

    def train(self, task: TrainingTask) -> TrainingResult:
        if not task.training:
            raise TrainingFailed("there is no structure to train on")
        self._take_time(task)
        model = ToyModel.load(task.parent) if task.parent else self._untrained(task)
        model = model.covering(task.training).fitted(task.training, self.ridge)
        task.folder.mkdir(parents=True, exist_ok=True)
        path = task.folder / "model.json"
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(model)))
        unfinished.replace(path)
        return TrainingResult(path, task.steps or 1, errors(ToyPredictor(model), task.validation or task.training))

    def _take_time(self, task: TrainingTask) -> None:
        """Sleep, then count steps; an interrupted attempt leaves how far it came, and the next one does the rest."""
        self._sleep(task, task.folder / "slept")
        checkpoint, steps = task.folder / "steps.json", task.steps or 1
        for step in range(json.loads(checkpoint.read_text()) if checkpoint.exists() else 0, steps):
            if step + 1 < steps and task.interrupted():
                checkpoint.write_text(json.dumps(step + 1))
                raise Interrupted(f"the training stopped at step {step + 1} of {steps}")
        checkpoint.unlink(missing_ok=True)

    def _sleep(self, task: TrainingTask, checkpoint: Path) -> None:
        slept = float(checkpoint.read_text()) if checkpoint.exists() else 0.0
        while slept < self.delay:
            if task.interrupted():
                raise Interrupted(f"it has slept for {slept:.1f} of {self.delay:g} s")
            time.sleep(STEP)
            slept += STEP
            task.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(checkpoint, str(slept).encode())

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        return ToyPredictor(ToyModel.load(model))

    def _untrained(self, task: TrainingTask) -> ToyModel:
        rng = np.random.default_rng(task.seed)  # members of a committee see distances through other Gaussians
        centres = np.linspace(0.5, self.cutoff, self.basis) + rng.uniform(-0.1, 0.1, self.basis)
        return ToyModel(self.cutoff, centres.tolist(), dict(task.atomic_energies), {})


@dataclass(frozen=True)
class ToyModel:
    """The weights, as they are on disk."""

    cutoff: float
    centres: list[float]
    """Of the Gaussians. [Å]"""
    atomic_energies: dict[str, float]
    """By chemical symbol. [eV]"""
    weights: dict[str, list[float]]
    """By pair of species, `"H-O"` for instance, one weight a Gaussian. [eV]"""

    @classmethod
    def load(cls, path: Path) -> ToyModel:
        return cls(**json.loads(path.read_text()))

    def covering(self, structures: Sequence[Atoms]) -> ToyModel:
        """The model with weights, zero at first, for every pair of species in the structures."""
        symbols = sorted({symbol for atoms in structures for symbol in atoms.symbols})
        names = [f"{a}-{b}" for a in symbols for b in symbols if a <= b]
        zero = [0.0] * len(self.centres)
        weights = {name: self.weights.get(name, zero) for name in sorted({*names, *self.weights})}
        return ToyModel(self.cutoff, self.centres, self.atomic_energies, weights)

    def fitted(self, structures: Sequence[Atoms], ridge: float) -> ToyModel:
        """Least squares on energies, forces and stresses, from the weights there are."""
        design = [self.design(atoms) for atoms in structures]
        known = [self._target(atoms) for atoms in structures]
        rows = np.concatenate([part.rows for part in design])
        target = np.concatenate(known)
        start = np.concatenate(list(self.weights.values()))
        gram = rows.T @ rows + ridge * np.eye(len(start))
        solution = start + np.linalg.solve(gram, rows.T @ (target - rows @ start))
        if not np.isfinite(solution).all():
            raise TrainingFailed("the fit has no finite solution; look for labels that are not numbers")
        by_pair = np.split(solution, len(self.weights))
        weights = {name: part.tolist() for name, part in zip(self.weights, by_pair, strict=True)}
        return ToyModel(self.cutoff, self.centres, self.atomic_energies, weights)

    def design(self, atoms: Atoms) -> Design:
        """What one unit of each weight adds to energy, forces and virial."""
        pairs, (value, slope) = self.curves(atoms)
        energy = [0.5 * column.sum() for column in value.T]
        forces = [pairs.forces(column, len(atoms)).ravel() for column in slope.T]
        virial = [pairs.virial(column) for column in slope.T] if atoms.pbc.all() else []
        return Design(np.array(energy), np.array(forces).T, np.array(virial).T if virial else np.zeros((0, 0)))

    def curves(self, atoms: Atoms) -> tuple[Pairs, tuple[Array, Array]]:
        """Value and slope of every Gaussian at every pair, shape (pairs, weights)."""
        pairs = Pairs.of(atoms, self.cutoff)
        width = self.cutoff / len(self.centres)
        off = (pairs.distance[:, None] - np.array(self.centres)) / width
        bell = np.exp(-0.5 * off**2)
        cut, cut_slope = (part[:, None] for part in switch(pairs.distance, self.cutoff))
        value, slope = bell * cut, bell * cut_slope - off / width * bell * cut
        symbols = np.array(atoms.get_chemical_symbols())
        ends = zip(symbols[pairs.first], symbols[pairs.second], strict=True)
        names = np.array(["-".join(sorted(pair)) for pair in ends])
        masks = [(names == name)[:, None] for name in self.weights]
        return pairs, (
            np.hstack([value * mask for mask in masks]),
            np.hstack([slope * mask for mask in masks]),
        )

    def _target(self, atoms: Atoms) -> Array:
        label = label_of(atoms)
        energy = label.energy - self.isolated(atoms)
        virial = label.stress * atoms.get_volume() if label.stress is not None else np.zeros(0)
        return np.concatenate([[energy], label.forces.ravel(), virial])

    def isolated(self, atoms: Atoms) -> float:
        """The energy of the same atoms, each on its own. [eV]"""
        return sum(self.atomic_energies.get(symbol, 0.0) for symbol in atoms.symbols)


@dataclass(frozen=True)
class Design:
    """The linear map from the weights to what is predicted."""

    energy: Array
    """Shape (weights,)."""
    forces: Array
    """Shape (3 atoms, weights)."""
    virial: Array
    """Shape (6, weights) for periodic structures, else empty."""

    @property
    def rows(self) -> Array:
        parts = [self.energy[None, :], self.forces, *([self.virial] if self.virial.size else [])]
        return np.concatenate(parts)


class ToyPredictor(Predictor):
    """A loaded model."""

    def __init__(self, model: ToyModel) -> None:
        self.model = model
        self.cutoff = model.cutoff
        self.weights = np.concatenate([np.zeros(0), *(np.array(part) for part in model.weights.values())])

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [self._one(atoms) for atoms in structures]

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        return [self._environments(atoms) for atoms in structures]

    def _one(self, atoms: Atoms) -> Prediction:
        pairs, (value, slope) = self.model.curves(atoms)
        force_of_pair = slope @ self.weights
        stress = pairs.virial(force_of_pair) / atoms.get_volume() if atoms.pbc.all() else None
        energy = 0.5 * float((value @ self.weights).sum()) + self.model.isolated(atoms)
        return Prediction(energy, pairs.forces(force_of_pair, len(atoms)), stress)

    def _environments(self, atoms: Atoms) -> Array:
        pairs, (value, _) = self.model.curves(atoms)
        total = np.zeros((len(atoms), value.shape[1]))
        np.add.at(total, pairs.first, value)
        return total


def errors(predictor: Predictor, structures: Sequence[Atoms]) -> dict[str, float]:
    """Root mean square and mean absolute errors, named as in `TrainingResult.errors`."""
    return training_errors(residuals(structures, predictor.predict(structures)))
