"""The training of one member of a committee; its weights are stored under their hash."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self, cast

from pydantic import NonNegativeInt

from psiflow_core import answers
from psiflow_core.components import Potential, Spec, TrainingTask
from psiflow_core.execution import scratch
from psiflow_core.execution.tasks.manifest import ManifestFile, TrainingLabels
from psiflow_core.execution.tasks.request import Finite, Grant, Request, Result, Work
from psiflow_core.files import copy_atomically, file_digest
from psiflow_core.identity import Place
from psiflow_core.labels.store import read_labels
from psiflow_core.potentials.trained import ModelFile
from psiflow_core.processes.block import Pace
from psiflow_core.registry.engines import require_engine
from psiflow_core.registry.plugins import build


class Weights(Result):
    path: str
    """The file, relative to the folder of weights."""
    digest: str


class Trained(Result):
    model: Weights
    steps: NonNegativeInt
    errors: dict[str, Finite]
    """As `TrainingResult.errors`."""
    history: list[dict[str, Finite]]


class TrainingRequest(Request):
    """Train a potential, from scratch or from a parent."""

    kind: ClassVar[str] = "train"
    work: ClassVar[Work] = "train"
    result: ClassVar[type[Result]] = Trained
    stops: ClassVar[bool] = True
    lists = MappingProxyType({"labels": TrainingLabels})

    potential: Spec
    labels: ManifestFile
    """The file of a `TrainingLabels`."""
    parent: ModelFile | None = None
    """A model of the same potential to start from."""
    seed: int
    steps: int | None = None
    """Gradient steps; None leaves the number to the potential's own options."""
    weights: Place
    """The folder of the weights."""

    @property
    def needs(self) -> tuple[Spec, ...]:
        return (self.potential,)

    def result_files(self, result: Result) -> list[ModelFile]:
        assert isinstance(result, Trained)
        return [ModelFile(self.weights / result.model.path, result.model.digest)]

    @property
    def checkpoints(self) -> Path:
        """The folder of a training's checkpoints, from which another attempt goes on."""
        return self.own_folder / "training"

    def kept(self) -> list[Path]:
        return [file for file in self.checkpoints.rglob("*") if file.is_file()]

    def apart(self, folder: Path) -> Self:
        return super().apart(folder).model_copy(update={"weights": folder / "models"})

    def run(self, grant: Grant) -> Trained:
        potential, who = cast(Potential, build(self.potential)), answers.named(self.potential)
        require_engine(potential)
        checkpoints = self.checkpoints
        checkpoints.mkdir(parents=True, exist_ok=True)
        task = self._task(checkpoints, grant)
        with scratch.inside(checkpoints), answers.blamed(who):
            found = potential.train(task)
        result = answers.training(found, checkpoints, who)
        digest = file_digest(result.model)
        kept = self.weights / f"{digest}{result.model.suffix}"
        copy_atomically(result.model, kept)
        model = Weights(path=kept.name, digest=digest)
        return Trained(model=model, steps=result.steps, errors=result.errors, history=result.history)

    def _task(self, folder: Path, grant: Grant) -> TrainingTask:
        labels = self.labels.read(TrainingLabels)
        return TrainingTask(
            training=read_labels(labels.training),
            validation=read_labels(labels.validation),
            atomic_energies=labels.atomic_energies,
            seed=self.seed,
            folder=folder,
            parent=self.parent.verified() if self.parent else None,
            steps=self.steps,
            resources=grant.resources,
            interrupted=Pace(),
        )
