"""Biases by their names."""

from __future__ import annotations

from typing import cast

from psiflow_core.bias.calculator import AseCalculator
from psiflow_core.bias.contract import Bias
from psiflow_core.bias.grid import Grid
from psiflow_core.bias.metadynamics import Metadynamics
from psiflow_core.bias.plumed import Plumed
from psiflow_core.bias.restraints import Harmonic, LowerWall, MovingHarmonic, UpperWall
from psiflow_core.structures import Plain
from psiflow_core.variables import choose

BIASES: tuple[type[Bias], ...] = (
    Harmonic,
    MovingHarmonic,
    UpperWall,
    LowerWall,
    Grid,
    Metadynamics,
    AseCalculator,
    Plumed,
)


def of_plain(plain: Plain) -> Bias:
    """The inverse of `Bias.to_plain`; raises `OptionError`."""
    return cast(Bias, choose(plain, BIASES, "bias"))
