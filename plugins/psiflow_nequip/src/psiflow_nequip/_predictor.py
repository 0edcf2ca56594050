"""A loaded model whose network is compiled."""

from __future__ import annotations

from psiflow_torch.architecture import Architecture, Output
from psiflow_torch.graphs import Batch
from psiflow_torch.model import Model
from psiflow_torch.predictor import TorchPredictor

from psiflow_nequip._compiled import CompiledNetwork
from psiflow_nequip._network import inputs, output


class CompiledPredictor(TorchPredictor):
    """As `TorchPredictor`, with compiled code for energies, forces and stresses."""

    def __init__(self, architecture: Architecture, model: Model, device: str) -> None:
        super().__init__(architecture, model, device)
        self._compiled = CompiledNetwork(model, self._network, self._device)

    def _output(self, batch: Batch, stress: bool) -> Output:
        return output(self._compiled(inputs(batch)))
