"""The potential keeps what every potential promises."""

from __future__ import annotations

from psiflow_mace.potential import Mace

from psiflow_core.testing import TrainablePotentialContract


class TestMace(TrainablePotentialContract):
    component = Mace
    options = {"num_channels": 8, "max_ell": 1, "readout_channels": 8, "dtype": "float64"}  # noqa: RUF012
    another_shape = {"num_channels": 4}  # noqa: RUF012
    steps = 60
