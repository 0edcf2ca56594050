"""The potentials keep what every potential promises."""

from __future__ import annotations

from psiflow_nequip.potential import Allegro, Nequip

from psiflow_core.testing import TrainablePotentialContract


class TestNequip(TrainablePotentialContract):
    component = Nequip
    options = {"num_features": 8, "radial_mlp_width": 16, "dtype": "float64"}  # noqa: RUF012
    another_shape = {"num_bessels": 4}  # noqa: RUF012
    steps = 60


class TestAllegro(TrainablePotentialContract):
    component = Allegro
    options = {"num_scalar_features": 16, "num_tensor_features": 4, "mlp_width": 16, "dtype": "float64"}  # noqa: RUF012
    another_shape = {"num_bessels": 4}  # noqa: RUF012
    steps = 60
