"""The options of the potential."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, ClassVar

from psiflow_torch.options import TorchOptions
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from psiflow_core.structures import Plain


class MaceOptions(TorchOptions):
    """The network, and its start from a foundation model."""

    network_options: ClassVar[tuple[str, ...]] = (
        "r_max",
        "num_channels",
        "max_L",
        "num_interactions",
        "correlation",
        "max_ell",
        "num_radial_basis",
        "num_cutoff_basis",
        "readout_channels",
    )

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

    weight_decay: NonNegativeFloat = 5e-7
    """L2 penalty on the weights of messages and products. [dimensionless]"""
    foundation_model: str | None = None
    """File of a MACE model (`.model`) whose architecture and weights a training starts from. The seed changes
    the weights slightly, so that a committee has a spread. MACE's files are pickles, which can run any code when
    they are opened: name only files that you trust. [path]"""
    foundation_digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of `foundation_model`; null takes that of the present file. A training does not open a file whose
    digest has changed. [hexadecimal]"""

    @property
    def shape(self) -> Plain:
        """The options that a parent and its child share; a foundation model decides the architecture instead."""
        if self.foundation_model is None:
            return super().shape
        return {"foundation_digest": self.foundation_digest, "dtype": self.dtype}

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
