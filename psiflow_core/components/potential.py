"""Trainable potentials: the contract, and the predictors that they load."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ase import Atoms

from psiflow_core.components.component import Component, Resources
from psiflow_core.components.predictor import Predictor
from psiflow_core.kinds import Kind


def never() -> bool:
    """Nothing interrupts the training."""
    return False


@dataclass(frozen=True)
class TrainingTask:
    """The training of one member, from scratch or from a parent."""

    training: Sequence[Atoms]
    """Labelled structures (`psiflow_core.structures.label_of`)."""
    validation: Sequence[Atoms]
    """Labelled structures that are never trained on; may be empty."""
    atomic_energies: dict[str, float]
    """Energy of each isolated atom by chemical symbol. [eV]"""
    seed: int
    folder: Path
    """The folder for checkpoints. It is the same for every attempt, so that a killed training is resumed."""
    parent: Path | None = None
    """A model of the same potential to start from: weights, scale and atomic energies are kept."""
    steps: int | None = None
    """Gradient steps; None leaves the number to the potential's own options."""
    resources: Resources = Resources()
    interrupted: Callable[[], bool] = never
    """Whether the training has to stop now: the time of its worker is over. Ask it after every step. If it says so,
    write a checkpoint, and raise `psiflow_core.errors.Interrupted`; another attempt goes on from there."""


@dataclass(frozen=True)
class TrainingResult:
    model: Path
    """The trained weights, inside `TrainingTask.folder`."""
    steps: int
    """Gradient steps taken, including those of earlier attempts."""
    errors: dict[str, float]
    """RMSE and MAE: `force_rmse`, `force_mae` [eV/Å], `energy_rmse`, `energy_mae` [eV/atom], and
    `stress_rmse` [eV/Å³] where there are stresses; on the validation set if there is one, else on the
    training set."""
    history: list[dict[str, float]] = field(default_factory=list)
    """`{"step", "loss", …}` over the course of the training."""


class Potential(Component):
    """A trainable architecture with its hyperparameters."""

    kind: ClassVar[Kind] = "potential"
    native_suffix: ClassVar[str] = ".model"
    """The file name extension of `export`."""

    @abstractmethod
    def train(self, task: TrainingTask) -> TrainingResult:
        """Train, and resume from `task.folder` if an earlier attempt left a checkpoint there.

        Raises:
            TrainingFailed: the loss is not finite, or there are no training data.
            Interrupted: `task.interrupted()` said so; a checkpoint is in `task.folder`.
        """

    @abstractmethod
    def load(self, model: Path, device: str = "cpu") -> Predictor:
        """The predictor of a model written by `train`."""

    def export(self, model: Path, target: Path) -> None:
        """Write a model in the native format of the architecture, for its own tools.

        Raises:
            NotImplementedError: the potential has no other format.
        """
        raise NotImplementedError(f"potential '{self.name}' has no format of its own to export to")
