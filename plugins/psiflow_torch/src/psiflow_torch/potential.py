"""The base class of potentials on PyTorch; it needs no torch itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from psiflow_core.checks import refuse_other_charges
from psiflow_core.components import Predictor, TrainingResult, TrainingTask
from psiflow_torch.options import TorchOptions

if TYPE_CHECKING:
    from psiflow_torch.architecture import Architecture
    from psiflow_torch.model import Model


class TorchPotential(TorchOptions):
    """A potential whose network is an `Architecture`.

    Structures that differ in charge or spin only are refused, because the graphs hold neither.
    """

    @abstractmethod
    def architecture(self) -> Architecture:
        """The network; import it within this method, so that the options need no engine."""

    def trained(self, task: TrainingTask) -> Model | None:
        """A model with trained weights from which a training without a parent starts; None starts at random."""
        return None

    def check(self, structures: Sequence[Atoms]) -> None:
        refuse_other_charges(structures, self.name)

    def train(self, task: TrainingTask) -> TrainingResult:
        from psiflow_torch import training

        return training.train(self, self.architecture(), task, self.trained)

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        from psiflow_torch.model import Model
        from psiflow_torch.predictor import TorchPredictor

        return TorchPredictor(self.architecture(), Model.open(model, self.name), device, self.compile)
