"""The potential `toy-pairs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from psiflow_torch.potential import TorchPotential
from pydantic import PositiveInt

if TYPE_CHECKING:
    from psiflow_torch.architecture import Architecture


class Pairs(TorchPotential):
    """A sum over pairs of neighbours: a network takes the distance and both species."""

    name: ClassVar[str] = "toy-pairs"
    engine: ClassVar[str] = "torch"
    network_options: ClassVar[tuple[str, ...]] = ("r_max", "width")

    width: PositiveInt = 16
    """Gaussians of the distance, and hidden neurons. [count]"""

    def architecture(self) -> Architecture:
        from psiflow_toys_torch._network import PairArchitecture

        return PairArchitecture()
