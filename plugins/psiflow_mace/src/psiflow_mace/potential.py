"""The potential `mace`: its options, and what can be done with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Potential, Predictor, TrainingResult, TrainingTask
from psiflow_core.errors import StructureError
from psiflow_core.structures import charge_of, spin_of


class Mace(Potential):
    """MACE: equivariant message passing with many-body messages (Batatia et al., NeurIPS 2022).

    The defaults suit the small data sets and budgets of online learning: a small network, small batches,
    a high learning rate that decays, and averaged weights.
    """

    name: ClassVar[str] = "mace"
    engine: ClassVar[str] = "mace"

    r_max: PositiveFloat = 5.0
    """Atoms nearer than this exchange messages. [Å]"""
    num_channels: PositiveInt = 16
    """Features of each atom for each angular momentum. [count]"""
    max_L: int = Field(default=0, ge=0, le=3)  # noqa: N815 (MACE's own name)
    """Highest angular momentum of the messages: 0 is fast, 1 and 2 are more accurate. [ħ]"""
    num_interactions: int = Field(default=2, ge=1, le=5)
    """Rounds of message passing; each widens what an atom sees by `r_max`. [count]"""
    correlation: int = Field(default=2, ge=1, le=4)
    """Neighbours that meet in one message: the body order is one more. [count]"""
    max_ell: int = Field(default=3, ge=0, le=4)
    """Highest angular momentum of the neighbours' spherical harmonics. [ħ]"""
    num_radial_basis: int = Field(default=8, ge=2)
    """Bessel functions of the distance. [count]"""
    num_cutoff_basis: int = Field(default=5, ge=2)
    """Exponent of the polynomial that takes messages to zero at `r_max`. [count]"""
    readout_channels: PositiveInt = 16
    """Hidden neurons of the last readout (`MLP_irreps` of MACE is this many `0e`). [count]"""

    steps: PositiveInt = 1000
    """Gradient steps, at most. [count]"""
    batch_size: PositiveInt | None = None
    """Structures in a gradient step; null takes as many as hold about 64 atoms, but no more than 8: a step on
    several small molecules costs hardly more than on one, and is worth more. [count]"""
    learning_rate: PositiveFloat = 0.03
    """Adam's learning rate at the first step of a training from scratch. [dimensionless]"""
    warm_learning_rate: PositiveFloat | None = None
    """The same for one that starts from a parent or a foundation model, reached over 50 steps: a high rate at once
    would make it forget what it starts with. Null takes `learning_rate`. [dimensionless]"""
    learning_rate_decay: float = Field(default=0.01, gt=0, le=1)
    """Learning rate at the last step over that at the first; it falls exponentially. [fraction]"""
    weight_decay: NonNegativeFloat = 5e-7
    """L2 penalty on the weights of messages and products. [dimensionless]"""
    amsgrad: bool = True
    """Use the AMSGrad variant of Adam. [yes or no]"""
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    """Memory of the exponential average over weights, which makes the final model. [fraction per step]"""
    gradient_clip: PositiveFloat | None = 10.0
    """Longest gradient that is followed as it is; null follows all. [norm]"""
    energy_weight: NonNegativeFloat = 10.0
    """Weight of the squared error of the energy per atom in the loss. [atom²/eV²]"""
    forces_weight: NonNegativeFloat = 100.0
    """Weight of the mean squared error of the force components in the loss. [Å²/eV²]"""
    stress_weight: NonNegativeFloat = 1000.0
    """Weight of the mean squared error of the stress components in the loss. [Å⁶/eV²]"""
    evaluate_every: PositiveInt = 50
    """Steps between two evaluations on the validation set, each of which leaves a checkpoint; the best weights are
    kept, by the geometric mean of the structures' losses. [count]"""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a better validation loss; null never stops. [count]"""

    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network; energies are always summed in float64. [name]"""
    foundation_model: str | None = None
    """File of a MACE model (`.model`) whose architecture and weights a training starts from; the seed moves the
    weights a little, so that a committee has a spread. MACE's files are pickles, which can run any code when they
    are opened: name only files that you trust. [path]"""
    foundation_digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of `foundation_model`; null takes that of the file as it is now. A file that has another one by the
    time of a training is not opened. [hexadecimal]"""

    @model_validator(mode="before")
    @classmethod
    def _pinned(cls, options: Any) -> Any:
        """The foundation model by full path and content, so that a spec means the same file everywhere."""
        file = options.get("foundation_model") if isinstance(options, dict) else None
        if not isinstance(file, str):
            return options
        path = Path(os.path.expanduser(file)).absolute()
        digest = options.get("foundation_digest") or _sha256(path)
        return {**options, "foundation_model": str(path), "foundation_digest": digest}

    @model_validator(mode="after")
    def _consistent(self) -> Mace:
        if self.max_L > self.max_ell:
            raise ValueError(f"max_L={self.max_L} needs max_ell of at least {self.max_L}; raise max_ell or lower max_L")
        if not (self.energy_weight or self.forces_weight):
            raise ValueError("energy_weight and forces_weight are both zero; give at least one of them a value")
        if self.foundation_digest is not None and self.foundation_model is None:
            raise ValueError("foundation_digest without foundation_model: name the file too")
        return self

    def check(self, structures: Sequence[Atoms]) -> None:
        _refuse_other_charges(structures)
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


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"foundation_model={str(file)!r} cannot be read: {error.strerror}") from None


def _refuse_other_charges(structures: Sequence[Atoms]) -> None:
    """MACE sees atoms and no electrons: a composition must come with one charge and one spin."""
    known: dict[str, tuple[int, int]] = {}
    for atoms in structures:
        formula, state = atoms.get_chemical_formula(), (charge_of(atoms), spin_of(atoms))
        other = known.setdefault(formula, state)
        if other != state:
            raise StructureError(
                f"{formula} comes with charge {other[0]} and spin {other[1]}, and with charge {state[0]} and spin "
                f"{state[1]}, which potential 'mace' cannot tell apart: learn each in a campaign of its own"
            )
