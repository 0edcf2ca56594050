"""The loss of some examples and its gradient, with compiled code where there is some."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from psiflow_torch.architecture import Architecture
from psiflow_torch.compiled import Code
from psiflow_torch.engine import torch
from psiflow_torch.examples import Example, labels
from psiflow_torch.graphs import Batch, collate
from psiflow_torch.model import Model
from psiflow_torch.options import TorchOptions
from psiflow_torch.programs import BATCH, LABELS, PROGRAMS, Inputs, flat, weight_names
from psiflow_torch.swift import Swift
from psiflow_torch.weighted import Labels, weighted


class Gradients:
    """The gradient of the loss of a network in training.

    Args:
        network: of this model's shape; the gradients of its weights are set.
        batch_size: examples in a step; code is compiled for two and more.
    """

    def __init__(
        self,
        options: TorchOptions,
        architecture: Architecture,
        model: Model,
        network: torch.nn.Module,
        device: torch.device,
        batch_size: int,
    ) -> None:
        self._architecture, self._network, self._device = architecture, network, device
        self._factors = torch.tensor(
            [options.energy_weight, options.forces_weight, options.stress_weight], dtype=torch.float64, device=device
        )
        weights = dict(network.named_parameters())
        self._weights = {name: weights[name] for name in weight_names(network)}
        make = partial(Code, PROGRAMS["steps"], architecture, model, device, self._eager)
        self._swift = Swift(make, options.compile if batch_size > 1 else "never", model.potential)

    def set(self, chosen: Sequence[Example]) -> float:
        """Set the gradients of the network's weights; returns the loss of these examples."""
        batch, known = collate([example.graph for example in chosen], self._device), labels(chosen, self._device)
        compiled = self._swift.compiled
        if compiled is not None and batch.count > 1 and batch.edges.shape[1] > 1:  # sizes that it is compiled for
            compiled.held.update({name: weight.detach() for name, weight in self._weights.items()})
            total, *slopes = compiled(*self._inputs(batch, known))
            for weight, slope in zip(self._weights.values(), slopes, strict=True):
                weight.grad = slope.clone()
            return total.item()
        with self._swift.counting():
            stress = any(example.has_stress for example in chosen)
            total = self._loss(batch, known, self._factors, stress)
            total.backward()
        return total.item()

    def _loss(self, batch: Batch, known: Labels, factors: torch.Tensor, stress: bool) -> torch.Tensor:
        output = self._architecture.forward(self._network, batch, stress=stress, training=True)
        return weighted(output, known, batch, *factors.to(output.forces.dtype).unbind())

    def _inputs(self, batch: Batch, known: Labels) -> Inputs:
        return (*flat(batch), *(getattr(known, name) for name in LABELS), self._factors)

    def _eager(self, inputs: Inputs) -> Inputs:
        """What compiled code has to give."""
        batch, known = Batch(*inputs[: len(BATCH)]), Labels(*inputs[len(BATCH) : -1])
        total = self._loss(batch, known, inputs[-1], stress=True)
        weights = list(self._weights.values())
        slopes = torch.autograd.grad(total, weights, allow_unused=True)
        along = zip(weights, slopes, strict=True)
        return total, *(torch.zeros_like(weight) if slope is None else slope for weight, slope in along)
