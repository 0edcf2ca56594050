"""Ridge regression on powers of the pair distance, as a potential with options of many types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from ase import Atoms
from pydantic import Field, PositiveFloat

from psiflow_core.components import Potential, Prediction, Predictor, TrainingResult, TrainingTask
from psiflow_core.errors import TrainingFailed
from psiflow_core.potentials.residuals import residuals, training_errors
from psiflow_core.structures import label_of


class Distant(Potential):
    """All pairs have one curve, a sum of powers; the fit is linear."""

    name: ClassVar[str] = "distant"
    engine: ClassVar[str] = "psiflow_toys_elsewhere.engine"

    cutoff: PositiveFloat = 4.0
    """Pairs farther apart do not count. [Å]"""
    powers: list[Annotated[int, Field(ge=2, le=12)]] = Field(default=[3, 4, 6], min_length=1)
    """Of the curve; each has its weight. [1]"""
    ridge: float = Field(default=1e-3, gt=0, le=1)
    """How strongly weights are held to zero. [1]"""
    fit: Literal["forces", "energies and forces"] = "energies and forces"
    """What is fitted."""
    remark: str | None = None
    """Anything; it is kept with the model."""
    scales: dict[str, PositiveFloat] = Field(default={})
    """By which the weights of `"energy"` and `"forces"` in the fit are multiplied. [1]"""

    def train(self, task: TrainingTask) -> TrainingResult:
        if not task.training:
            raise TrainingFailed("there is no structure to train on")
        rows, known = zip(*(self._equations(atoms, task) for atoms in task.training), strict=True)
        matrix, target = np.concatenate(rows), np.concatenate(known)
        gram = matrix.T @ matrix + self.ridge * np.eye(len(self.powers))
        weights = np.linalg.solve(gram, matrix.T @ target)
        model: dict[str, Any] = {"weights": weights.tolist(), "cutoff": self.cutoff, "powers": self.powers}
        model |= {"atomic_energies": dict(task.atomic_energies), "remark": self.remark}
        task.folder.mkdir(parents=True, exist_ok=True)
        path = task.folder / "model.json"
        path.write_text(json.dumps(model))
        judged = task.validation or task.training
        errors = training_errors(residuals(judged, self.load(path).predict(judged)))
        return TrainingResult(path, task.steps or 1, errors)

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        return DistantPredictor(json.loads(model.read_text()))

    def _equations(self, atoms: Atoms, task: TrainingTask) -> tuple[Any, Any]:
        from psiflow_toys_elsewhere.engine import design

        label = label_of(atoms)
        energy, forces = design(atoms, self.cutoff, self.powers)
        alone = sum(task.atomic_energies.get(symbol, 0.0) for symbol in atoms.symbols)
        of_energy = self.scales.get("energy", 1.0) * (self.fit != "forces")
        of_forces = self.scales.get("forces", 1.0)
        rows = np.vstack([of_energy * energy, of_forces * forces.reshape(-1, len(self.powers))])
        return rows, np.concatenate([[of_energy * (label.energy - alone)], of_forces * label.forces.ravel()])


class DistantPredictor(Predictor):
    """A loaded model."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.cutoff = model["cutoff"]

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [self._one(atoms) for atoms in structures]

    def _one(self, atoms: Atoms) -> Prediction:
        from psiflow_toys_elsewhere.engine import design

        weights = np.array(self.model["weights"])
        energy, forces = design(atoms, self.cutoff, self.model["powers"])
        alone = sum(self.model["atomic_energies"].get(symbol, 0.0) for symbol in atoms.symbols)
        return Prediction(float(energy @ weights) + alone, forces @ weights)
