"""The order of the examples, the learning rate, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch.optim.swa_utils import get_ema_multi_avg_fn

from psiflow_torch.engine import torch
from psiflow_torch.examples import Example
from psiflow_torch.graphs import Integers
from psiflow_torch.options import TorchOptions

WARM_UP = 50
"""Steps over which the learning rate rises if the initial weights are trained: Adam's first steps are as long as the
learning rate, whatever the gradient, since it has no estimate of the variances yet. [count]"""


def fitting_batch(training: Sequence[Example]) -> int:
    """Structures in a gradient step: about 64 atoms, at most 8 structures, and no more than there are."""
    atoms = float(np.mean([len(example.graph) for example in training]))
    return max(1, min(8, round(64 / atoms), len(training)))


def minibatch(step: int, seed: int, count: int, size: int) -> list[int]:
    """Indices of the examples of a step; each pass over the data has its own order, drawn with the seed."""
    places = range(step * size, (step + 1) * size)
    orders: dict[int, Integers] = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in {k // count for k in places}
    }
    return [int(orders[k // count][k % count]) for k in places]


class LearningRate:
    """Adam's learning rate at each step.

    Args:
        steps: of the whole training.
        warm: whether the initial weights are trained.
    """

    def __init__(self, options: TorchOptions, steps: int, warm: bool) -> None:
        self._steps, self._warm, self._decay = steps, warm, options.learning_rate_decay
        self.option = "warm_learning_rate" if warm else "learning_rate"
        """The option that sets it."""
        self.first = (options.warm_learning_rate if warm else None) or options.learning_rate

    def at(self, step: int) -> float:
        rate = self.first * self._decay ** (step / max(1, self._steps - 1))
        return float(rate * min(1.0, (step + 1) / WARM_UP)) if self._warm else float(rate)


class Average:
    """The exponential moving average of a network's weights.

    It forgets random initial weights quickly, and trained ones slowly.
    """

    def __init__(self, network: torch.nn.Module, decay: float, warm: bool) -> None:
        self._weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._averages = [weight.detach().clone() for weight in self._weights]
        self._decay, self._warm, self._updates = decay, warm, 0
        self._network = network

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network by a step."""
        self._updates += 1
        decay = self._decay if self._warm else min(self._decay, (1 + self._updates) / (10 + self._updates))
        get_ema_multi_avg_fn(decay)(self._averages, self._weights, self._updates)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averages for its weights, and is in evaluation mode, temporarily."""
        trained = [weight.detach().clone() for weight in self._weights]
        self._copy(self._averages)
        self._network.eval()
        try:
            yield
        finally:
            self._copy(trained)
            self._network.train()

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self._averages, "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._updates = state["updates"]
        for average, held in zip(self._averages, state["averages"], strict=True):
            average.copy_(held)

    @torch.no_grad()
    def _copy(self, values: Sequence[torch.Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)
