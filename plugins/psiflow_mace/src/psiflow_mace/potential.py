"""The potential `mace`: its checks, its network and its export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ase import Atoms
from psiflow_torch.potential import TorchPotential

from psiflow_core.components import TrainingTask
from psiflow_mace.options import MaceOptions

if TYPE_CHECKING:
    from psiflow_torch.architecture import Architecture
    from psiflow_torch.model import Model


class Mace(MaceOptions, TorchPotential):
    """MACE: equivariant message passing with many-body messages (Batatia et al., NeurIPS 2022).

    The defaults suit the small data sets and budgets of online learning: a small network, small batches,
    a high learning rate that decays, and averaged weights.
    """

    name: ClassVar[str] = "mace"
    engine: ClassVar[str] = "mace"

    def architecture(self) -> Architecture:
        from psiflow_mace._network import MaceNetwork

        return MaceNetwork()

    def trained(self, task: TrainingTask) -> Model | None:
        if self.foundation_model is None:
            return None
        from psiflow_mace import _foundation

        return _foundation.model(self, task)

    def check(self, structures: Sequence[Atoms]) -> None:
        super().check(structures)
        if self.foundation_model is not None:
            from psiflow_mace import _foundation

            _foundation.check(self, structures)

    def export(self, model: Path, target: Path) -> None:
        from psiflow_mace import _export

        _export.export(model, target)
