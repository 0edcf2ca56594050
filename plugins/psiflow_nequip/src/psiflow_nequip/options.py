"""The options of the potentials."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from psiflow_torch.options import TorchOptions
from pydantic import Field, PositiveFloat, PositiveInt

from psiflow_core.structures import Plain


class EquivariantOptions(TorchOptions):
    """The common options of NequIP and Allegro."""

    num_bessels: PositiveInt = 8
    """Bessel functions of the distance. [count]"""
    polynomial_cutoff_p: int = Field(default=6, ge=2)
    """Exponent of the polynomial that brings the influence of neighbours to zero at `r_max`. [count]"""

    learning_rate: PositiveFloat = 0.06
    """Adam's learning rate at the first step of a training from scratch. [dimensionless]"""

    @abstractmethod
    def network(self) -> Plain:
        """The options of the library's model builder that decide the network, without data and species."""


class NequipOptions(EquivariantOptions):
    """The network of NequIP."""

    network_options: ClassVar[tuple[str, ...]] = (
        "r_max",
        "num_bessels",
        "polynomial_cutoff_p",
        "num_layers",
        "l_max",
        "parity",
        "num_features",
        "radial_mlp_depth",
        "radial_mlp_width",
    )

    num_layers: int = Field(default=2, ge=1, le=6)
    """Rounds of message passing; each extends an atom's environment by `r_max`. [count]"""
    l_max: int = Field(default=2, ge=0, le=4)
    """Highest angular momentum of the features: 1 is faster, 3 more accurate. [ħ]"""
    parity: bool = False
    """Keep features of both mirror parities for each angular momentum; otherwise only the parity of its spherical
    harmonics, which is faster. [yes or no]"""
    num_features: PositiveInt = 16
    """Features of each atom for each angular momentum and parity. [count]"""
    radial_mlp_depth: PositiveInt = 1
    """Hidden layers of the radial networks. [count]"""
    radial_mlp_width: PositiveInt = 32
    """Hidden neurons in each of these layers. [count]"""

    def network(self) -> Plain:
        return {name: getattr(self, name) for name in self.network_options}


class AllegroOptions(EquivariantOptions):
    """The network of Allegro."""

    network_options: ClassVar[tuple[str, ...]] = (
        "r_max",
        "num_bessels",
        "polynomial_cutoff_p",
        "num_layers",
        "l_max",
        "parity",
        "num_scalar_features",
        "num_tensor_features",
        "mlp_depth",
        "mlp_width",
    )

    num_layers: int = Field(default=1, ge=1, le=4)
    """Tensor products: the body order is two more. [count]"""
    l_max: int = Field(default=2, ge=1, le=4)
    """Highest angular momentum of the features: 1 is faster, 3 more accurate. [ħ]"""
    parity: bool = False
    """Keep tensors of both mirror parities for each angular momentum; otherwise only the parity of its spherical
    harmonics, which is faster. [yes or no]"""
    num_scalar_features: PositiveInt = 64
    """Scalar features of each pair of neighbours. [count]"""
    num_tensor_features: PositiveInt = 16
    """Tensor features of each pair for each angular momentum. [count]"""
    mlp_depth: PositiveInt = 1
    """Hidden layers of the networks that embed pairs, that mix their scalars, and that read out energies. [count]"""
    mlp_width: PositiveInt = 64
    """Hidden neurons in each of these layers. [count]"""

    def network(self) -> Plain:
        own = ("num_bessels", "polynomial_cutoff_p", "mlp_depth", "mlp_width")
        pairs = {
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": self.num_bessels,
            "polynomial_cutoff_p": self.polynomial_cutoff_p,
        }
        layers = {
            f"{part}_mlp_hidden_layers_{size}": value
            for part in ("scalar_embed", "allegro", "readout")
            for size, value in (("depth", self.mlp_depth), ("width", self.mlp_width))
        }
        chosen = {name: getattr(self, name) for name in self.network_options if name not in own}
        return {**chosen, "radial_chemical_embed": pairs, **layers}
