"""The options of the potential."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Potential


class MaceOptions(Potential):
    """The network, its training and its precision."""

    r_max: PositiveFloat = 5.0
    """Atoms closer than this exchange messages. [Å]"""
    num_channels: PositiveInt = 16
    """Features of each atom for each angular momentum. [count]"""
    max_L: int = Field(default=0, ge=0, le=3)  # noqa: N815 (MACE's own name)
    """Highest angular momentum of the messages: 0 is fast, 1 and 2 are more accurate. [ħ]"""
    num_interactions: int = Field(default=2, ge=1, le=5)
    """Rounds of message passing; each extends an atom's environment by `r_max`. [count]"""
    correlation: int = Field(default=2, ge=1, le=4)
    """Neighbours that enter one message together; the body order is one more. [count]"""
    max_ell: int = Field(default=3, ge=0, le=4)
    """Highest angular momentum of the neighbours' spherical harmonics. [ħ]"""
    num_radial_basis: int = Field(default=8, ge=2)
    """Bessel functions of the distance. [count]"""
    num_cutoff_basis: int = Field(default=5, ge=2)
    """Exponent of the polynomial that brings messages to zero at `r_max`. [count]"""
    readout_channels: PositiveInt = 16
    """Hidden neurons of the last readout (`MLP_irreps` of MACE is this many `0e`). [count]"""

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
    weight_decay: NonNegativeFloat = 5e-7
    """L2 penalty on the weights of messages and products. [dimensionless]"""
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
    foundation_model: str | None = None
    """File of a MACE model (`.model`) whose architecture and weights a training starts from. The seed changes
    the weights slightly, so that a committee has a spread. MACE's files are pickles, which can run any code when
    they are opened: name only files that you trust. [path]"""
    foundation_digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of `foundation_model`; null takes that of the present file. A training does not open a file whose
    digest has changed. [hexadecimal]"""

    @model_validator(mode="before")
    @classmethod
    def _pinned(cls, options: Any) -> Any:
        """Complete the foundation model's path and digest, so that a spec means the same file everywhere."""
        file = options.get("foundation_model") if isinstance(options, dict) else None
        if not isinstance(file, str):
            return options
        path = Path(os.path.expanduser(file)).absolute()
        digest = options.get("foundation_digest") or _sha256(path)
        return {**options, "foundation_model": str(path), "foundation_digest": digest}

    @model_validator(mode="after")
    def _consistent(self) -> MaceOptions:
        if self.max_L > self.max_ell:
            raise ValueError(f"max_L={self.max_L} needs max_ell of at least {self.max_L}; raise max_ell or lower max_L")
        if not (self.energy_weight or self.forces_weight):
            raise ValueError("energy_weight and forces_weight are both zero; give at least one of them a value")
        if self.foundation_digest is not None and self.foundation_model is None:
            raise ValueError("foundation_digest without foundation_model: name the file too")
        return self


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"foundation_model={str(file)!r} cannot be read: {error.strerror}; name a readable file"
        ) from None
