"""The potential `mace`: its checks, training, loading and export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ase import Atoms

from psiflow_core.checks import refuse_other_charges
from psiflow_core.components import Predictor, TrainingResult, TrainingTask
from psiflow_mace.options import MaceOptions


class Mace(MaceOptions):
    """MACE: equivariant message passing with many-body messages (Batatia et al., NeurIPS 2022).

    The defaults suit the small data sets and budgets of online learning: a small network, small batches,
    a high learning rate that decays, and averaged weights.
    """

    name: ClassVar[str] = "mace"
    engine: ClassVar[str] = "mace"

    def check(self, structures: Sequence[Atoms]) -> None:
        refuse_other_charges(structures, self.name)
        if self.foundation_model is not None:
            from psiflow_mace import _foundation

            _foundation.check(self, structures)

    def train(self, task: TrainingTask) -> TrainingResult:
        from psiflow_mace import _training

        return _training.train(self, task)

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        from psiflow_mace import _predictor

        return _predictor.MacePredictor.of_file(model, device)

    def export(self, model: Path, target: Path) -> None:
        from psiflow_mace import _model

        _model.export(model, target)
