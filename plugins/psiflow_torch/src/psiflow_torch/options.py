"""The options that all potentials on PyTorch have: training and precision."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Potential
from psiflow_core.structures import Plain


class TorchOptions(Potential):
    """The cutoff, the training and the precision. A potential may give other defaults."""

    network_options: ClassVar[tuple[str, ...]]
    """The options that decide the number and meaning of the weights: a parent and its child share them."""

    r_max: PositiveFloat = 5.0
    """Atoms closer than this are neighbours. [Å]"""

    steps: PositiveInt = 1000
    """Largest number of gradient steps. [count]"""
    batch_size: PositiveInt | None = None
    """Structures in a gradient step; null takes as many as hold about 64 atoms, at most 8. A step on several small
    molecules costs hardly more than a step on one, and improves the model more. [count]"""
    learning_rate: PositiveFloat = 0.03
    """Adam's learning rate at the first step of a training from scratch. [dimensionless]"""
    warm_learning_rate: PositiveFloat | None = None
    """Adam's learning rate in a training from a parent or a foundation model. It is reached over 50 steps, since a
    high rate at once would spoil the initial weights. Null takes `learning_rate`. [dimensionless]"""
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
    """Precision of the network; energies are always summed in float64. [name]"""

    compile: Literal["auto", "always", "never"] = "auto"
    """Predict and train with compiled code (AOTInductor), which needs a C++ compiler, and takes minutes once for each
    architecture and kind of machine. Auto uses code that is there, and compiles after a few times as long without it.
    [name]"""

    @model_validator(mode="after")
    def _has_a_loss(self) -> Self:
        if not (self.energy_weight or self.forces_weight):
            raise ValueError("energy_weight and forces_weight are both zero; give at least one of them a value")
        return self

    @property
    def shape(self) -> Plain:
        """The options that a parent and its child share, and their values."""
        chosen = self.options()
        return {name: chosen[name] for name in (*self.network_options, "dtype")}
