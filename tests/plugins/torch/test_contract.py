"""A potential that has a network and its energies only keeps what every trainable potential promises."""

from __future__ import annotations

from psiflow_toys_torch.potential import Pairs

from psiflow_core.testing import TrainablePotentialContract


class TestPairs(TrainablePotentialContract):
    component = Pairs
    options = {"dtype": "float64", "evaluate_every": 20}  # noqa: RUF012
    another_shape = {"width": 8}  # noqa: RUF012
    steps = 200
