"""The options of the potentials."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Potential
from psiflow_core.structures import Plain


class EquivariantOptions(Potential):
    """The common options of NequIP and Allegro: neighbours, training and precision."""

    shape: ClassVar[tuple[str, ...]]
    """The options that a parent and its child must share: they decide the number and meaning of the weights."""

    r_max: PositiveFloat = 5.0
    """Atoms closer than this are neighbours. [Å]"""
    num_bessels: PositiveInt = 8
    """Bessel functions of the distance. [count]"""
    polynomial_cutoff_p: int = Field(default=6, ge=2)
    """Exponent of the polynomial that brings the influence of neighbours to zero at `r_max`. [count]"""

    steps: PositiveInt = 1000
    """Largest number of gradient steps. [count]"""
    batch_size: PositiveInt | None = None
    """Structures in a gradient step; null takes as many as hold about 64 atoms, at most 8. A step on several small
    molecules costs hardly more than a step on one, and improves the model more. [count]"""
    learning_rate: PositiveFloat = 0.06
    """Adam's learning rate at the first step of a training from scratch. [dimensionless]"""
    warm_learning_rate: PositiveFloat | None = None
    """Adam's learning rate in a training from a parent. It is reached over 50 steps, since a high rate at once would
    spoil the initial weights. Null takes `learning_rate`. [dimensionless]"""
    learning_rate_decay: float = Field(default=0.01, gt=0, le=1)
    """Ratio of the learning rates at the last and the first step; the rate falls exponentially. [fraction]"""
    amsgrad: bool = True
    """Use the AMSGrad variant of Adam. [yes or no]"""
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    """Decay of the exponential average of the weights, which is the final model. [fraction per step]"""
    gradient_clip: PositiveFloat | None = 10.0
    """Largest norm of the gradient; a longer one is scaled down to it. Null sets no limit. [norm]"""
    energy_weight: NonNegativeFloat = 10.0
    """Weight of the squared error of the energy per atom in the loss. [atom²/eV²]"""
    forces_weight: NonNegativeFloat = 100.0
    """Weight of the mean squared error of the force components in the loss. [Å²/eV²]"""
    stress_weight: NonNegativeFloat = 1000.0
    """Weight of the mean squared error of the stress components in the loss. [Å⁶/eV²]"""
    evaluate_every: PositiveInt = 50
    """Steps between two evaluations on the validation set. Each writes a checkpoint. The weights with the smallest
    geometric mean of the structures' losses are kept. [count]"""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a better validation loss; null never stops. [count]"""

    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network; positions, and the sum of its energies, are always in float64. [name]"""
    compile: bool = False
    """Predict with compiled code (AOTInductor). Compiling needs a C++ compiler, and takes a minute or two once for
    each architecture and machine. [yes or no]"""

    @model_validator(mode="after")
    def _consistent(self) -> EquivariantOptions:
        if not (self.energy_weight or self.forces_weight):
            raise ValueError("energy_weight and forces_weight are both zero; give at least one of them a value")
        return self

    @abstractmethod
    def network(self) -> Plain:
        """The options of the library's model builder that decide the network, without data and species."""


class NequipOptions(EquivariantOptions):
    """The network of NequIP."""

    shape: ClassVar[tuple[str, ...]] = (
        "r_max",
        "num_bessels",
        "polynomial_cutoff_p",
        "num_layers",
        "l_max",
        "parity",
        "num_features",
        "radial_mlp_depth",
        "radial_mlp_width",
        "dtype",
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
        return {name: getattr(self, name) for name in self.shape if name != "dtype"}


class AllegroOptions(EquivariantOptions):
    """The network of Allegro."""

    shape: ClassVar[tuple[str, ...]] = (
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
        "dtype",
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
        own = ("num_bessels", "polynomial_cutoff_p", "mlp_depth", "mlp_width", "dtype")
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
        chosen = {name: getattr(self, name) for name in self.shape if name not in own}
        return {**chosen, "radial_chemical_embed": pairs, **layers}
