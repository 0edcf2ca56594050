"""Compiling the predictions of a model, in a process of its own: a compiler needs time and memory, and may fail."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from psiflow_torch.architecture import Architecture
from psiflow_torch.engine import alone, threads, torch
from psiflow_torch.graphs import Batch, GraphBuilder, collate
from psiflow_torch.model import Model

FIELDS = tuple(field.name for field in fields(Batch))
"""The order of the code's first arguments; the network's tensors follow."""

AXES: tuple[dict[int, str], ...] = (
    {0: "atoms"},
    {0: "atoms"},
    {1: "edges"},
    {0: "edges"},
    {0: "edges"},
    {0: "structures"},
    {0: "atoms"},
    {0: "structures"},
)
"""The axes of each of `FIELDS` whose sizes differ between batches."""


def compile_apart(architecture: Architecture, model: Model, device: torch.device, target: Path) -> None:
    """Compile in another process, for as many threads as torch has here.

    Raises:
        RuntimeError: it fails; with its last words.
    """
    given = pickle.dumps((architecture, model, str(device), torch.get_num_threads(), str(target)))
    with tempfile.TemporaryDirectory(prefix="psiflow-compile-") as folder:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        command = [sys.executable, "-m", "psiflow_torch.compiler"]
        done = subprocess.run(command, input=given, capture_output=True, env=environment, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"compiling failed: {words[-1] if words else f'exit status {done.returncode}'}")


def main() -> None:
    architecture, model, device, count, target = pickle.loads(sys.stdin.buffer.read())  # of the parent process
    with threads(count):
        _compile(architecture, model, torch.device(device), target)


def _compile(architecture: Architecture, model: Model, device: torch.device, target: str) -> None:
    network = architecture.traceable(model).to(device).eval().requires_grad_(False)
    weights = list(tensors(network).values())
    arguments = (*flat(example(model, samples(model, (8, 12, 5, 11, 7)), device)), *weights)
    traced = _traced(architecture, network, arguments)
    sizes = {name: torch.export.Dim(name, min=2) for name in ("structures", "atoms", "edges")}
    shapes = (*({axis: sizes[name] for axis, name in axes.items()} for axes in AXES), *({} for _ in weights))
    exported = torch.export.export(traced, arguments, dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(exported, package_path=target)


def samples(model: Model, sizes: Sequence[int]) -> list[Atoms]:
    """Random clusters of all species, so large, with neighbours within the cutoff."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3) * model.cutoff / 2.5
    made = []
    for number, size in enumerate(sizes):
        symbols = [model.symbols[(k + number) % len(model.symbols)] for k in range(size)]
        made.append(Atoms(symbols, grid[:size] + rng.normal(scale=model.cutoff / 50, size=(size, 3))))
    return made


def _traced(architecture: Architecture, network: torch.nn.Module, arguments: Sequence[torch.Tensor]) -> Any:
    """The operations of a prediction as a graph, derivatives included, for any sizes."""
    from torch.fx.experimental import _config
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [f"network.{name}" for name in tensors(network)]
    asked = _Asked(architecture, network)

    def predict(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        held = dict(zip(names, values[len(FIELDS) :], strict=True))
        return torch.func.functional_call(asked, held, values[: len(FIELDS)])

    einsum, duck = torch.backends.opt_einsum.enabled, _config.use_duck_shape
    with alone(), torch.jit.optimized_execution(False):
        try:
            torch.backends.opt_einsum.enabled = False  # its search takes the sizes of the example for constants
            _config.use_duck_shape = False  # and so would equal sizes of different axes
            return make_fx(predict, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
        finally:
            torch.backends.opt_einsum.enabled, _config.use_duck_shape = einsum, duck


class _Asked(torch.nn.Module):
    """A network as a function of tensors alone."""

    def __init__(self, architecture: Architecture, network: torch.nn.Module) -> None:
        super().__init__()
        self._architecture, self.network = architecture, network

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self._architecture.traced(self.network, Batch(*values))
        assert output.stresses is not None
        return output.energies.detach(), output.forces.detach(), output.stresses.detach()


def tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers by their names."""
    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items() if tensor.numel()}


def flat(batch: Batch) -> tuple[torch.Tensor, ...]:
    return tuple(getattr(batch, name) for name in FIELDS)


def example(model: Model, structures: Sequence[Atoms], device: torch.device) -> Batch:
    builder = GraphBuilder(model.cutoff, model.symbols)
    return collate([builder.graph(atoms) for atoms in structures], device)


if __name__ == "__main__":
    main()
