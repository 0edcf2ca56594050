"""The functions that are compiled: of the tensors of a batch, and of those of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from ase import Atoms

from psiflow_torch.architecture import Architecture
from psiflow_torch.engine import Tensors, torch
from psiflow_torch.graphs import Batch, GraphBuilder, collate
from psiflow_torch.model import Model
from psiflow_torch.weighted import Labels, weighted

Inputs = tuple[torch.Tensor, ...]

Axes = tuple[dict[int, str], ...]
"""For each input, the axes whose sizes differ between batches, and what they count."""

BATCH = tuple(field.name for field in fields(Batch))
"""The order of a batch's tensors among the inputs."""

BATCH_AXES: Axes = (
    {0: "atoms"},
    {0: "atoms"},
    {1: "edges"},
    {0: "edges"},
    {0: "edges"},
    {0: "structures"},
    {0: "atoms"},
    {0: "structures"},
)

LABELS = tuple(field.name for field in fields(Labels))

LABEL_AXES: Axes = ({0: "structures"}, {0: "atoms"}, {0: "structures"}, {0: "structures"})


class Program(ABC):
    """A function whose code is compiled once for all models of a shape."""

    name: ClassVar[str]
    axes: ClassVar[Axes]
    pays: ClassVar[float]
    """Time spent without code by all processes before it is compiled: a few times as long as that takes. [s]"""

    @abstractmethod
    def example(self, model: Model, sizes: Sequence[int], device: torch.device) -> Inputs:
        """Inputs for clusters of so many atoms."""

    @abstractmethod
    def run(self, architecture: Architecture, network: torch.nn.Module, inputs: Inputs, held: Tensors) -> Inputs:
        """The outputs for some inputs, with `held` in place of the tensors of a traceable network."""


class Predictions(Program):
    """Energies, forces and stresses of a batch."""

    name = "predictions"
    axes = BATCH_AXES
    pays = 600.0

    def example(self, model: Model, sizes: Sequence[int], device: torch.device) -> Inputs:
        return flat(example(model, samples(model, sizes), device))

    def run(self, architecture: Architecture, network: torch.nn.Module, inputs: Inputs, held: Tensors) -> Inputs:
        def predict(*values: torch.Tensor) -> Inputs:
            output = architecture.traced(network, Batch(*values), training=False)
            assert output.stresses is not None
            return output.energies.detach(), output.forces.detach(), output.stresses.detach()

        return with_tensors(network.eval(), held, predict, inputs)


class Steps(Program):
    """The loss of a batch, and its slope along each weight of the network.

    Inputs are the batch, its labels, and the weights of energies, forces and stresses in the loss, shape (3,).
    """

    name = "steps"
    axes = (*BATCH_AXES, *LABEL_AXES, {})
    pays = 1200.0

    def example(self, model: Model, sizes: Sequence[int], device: torch.device) -> Inputs:
        batch, random = example(model, samples(model, sizes), device), torch.Generator().manual_seed(0)
        shapes = (len(sizes),), (sum(sizes), 3), (len(sizes), 3, 3)
        labels = [torch.randn(shape, generator=random, dtype=torch.float64).to(device) for shape in shapes]
        known = torch.ones(len(sizes), dtype=torch.float64, device=device)
        return (*flat(batch), *labels, known, torch.tensor([10.0, 100.0, 10.0], dtype=torch.float64, device=device))

    def run(self, architecture: Architecture, network: torch.nn.Module, inputs: Inputs, held: Tensors) -> Inputs:
        weights = weight_names(network)
        held = {name: value.detach().requires_grad_(name in weights) for name, value in held.items()}

        def lost(*values: torch.Tensor) -> torch.Tensor:
            batch, labels = Batch(*values[: len(BATCH)]), Labels(*values[len(BATCH) : -1])
            output = architecture.traced(network, batch, training=True)
            return weighted(output, labels, batch, *values[-1].to(output.forces.dtype).unbind())

        total = with_tensors(network.train(), held, lost, inputs)
        slopes = torch.autograd.grad(total, [held[name] for name in weights], allow_unused=True)
        along = zip(weights, slopes, strict=True)
        return total.detach(), *(
            torch.zeros_like(held[name]) if slope is None else slope.detach() for name, slope in along
        )


PROGRAMS: dict[str, Program] = {program.name: program for program in (Predictions(), Steps())}


def with_tensors(network: torch.nn.Module, held: Tensors, function: Any, inputs: Inputs) -> Any:
    """A function's result while other tensors are in place of those of a network."""
    asked = _Asked(network, function)
    return torch.func.functional_call(asked, {f"network.{name}": value for name, value in held.items()}, inputs)


class _Asked(torch.nn.Module):
    def __init__(self, network: torch.nn.Module, function: Any) -> None:
        super().__init__()
        self.network, self._function = network, function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self._function(*inputs)


def tensors(network: torch.nn.Module) -> Tensors:
    """Weights and then buffers by their names."""
    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items() if tensor.numel()}


def weight_names(network: torch.nn.Module) -> list[str]:
    """The names of the weights among `tensors`."""
    return [name for name, tensor in network.named_parameters() if tensor.numel()]


def flat(batch: Batch) -> Inputs:
    """The tensors of a batch in order."""
    return tuple(getattr(batch, name) for name in BATCH)


def example(model: Model, structures: Sequence[Atoms], device: torch.device) -> Batch:
    """The batch of some structures."""
    builder = GraphBuilder(model.cutoff, model.symbols)
    return collate([builder.graph(atoms) for atoms in structures], device)


def samples(model: Model, sizes: Sequence[int]) -> list[Atoms]:
    """Random clusters of all species, so large, with neighbours within the cutoff."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3) * model.cutoff / 2.5
    made = []
    for number, size in enumerate(sizes):
        symbols = [model.symbols[(k + number) % len(model.symbols)] for k in range(size)]
        made.append(Atoms(symbols, grid[:size] + rng.normal(scale=model.cutoff / 50, size=(size, 3))))
    return made
