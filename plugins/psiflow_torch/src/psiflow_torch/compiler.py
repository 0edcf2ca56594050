"""Compiling a program, in a process of its own: a compiler needs time and memory, and may fail."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from psiflow_torch.architecture import Architecture
from psiflow_torch.engine import alone, threads, torch
from psiflow_torch.model import Model
from psiflow_torch.programs import PROGRAMS, Inputs, Program, tensors

SIZES = (8, 12, 5, 11, 7)
"""Atoms of the clusters with which a program is traced: no two sizes of axes are equal."""


def compile_apart(
    program: Program, architecture: Architecture, model: Model, device: torch.device, target: Path
) -> None:
    """Compile in another process, for as many threads as torch has here.

    Raises:
        RuntimeError: it fails; with its last words.
    """
    given = pickle.dumps((program.name, architecture, model, str(device), torch.get_num_threads(), str(target)))
    with tempfile.TemporaryDirectory(prefix="psiflow-compile-") as folder:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        command = [sys.executable, "-m", "psiflow_torch.compiler"]
        done = subprocess.run(command, input=given, capture_output=True, env=environment, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"compiling failed: {words[-1] if words else f'exit status {done.returncode}'}")


def main() -> None:
    name, architecture, model, device, count, target = pickle.loads(sys.stdin.buffer.read())  # of the parent process
    with threads(count):
        _compile(PROGRAMS[name], architecture, model, torch.device(device), target)


def _compile(program: Program, architecture: Architecture, model: Model, device: torch.device, target: str) -> None:
    network = architecture.traceable(model).to(device)
    held = list(tensors(network).values())
    arguments = (*program.example(model, SIZES, device), *held)
    traced = _traced(program, architecture, network, arguments)
    sizes = {name: torch.export.Dim(name, min=2) for name in ("structures", "atoms", "edges")}
    shapes = (*({axis: sizes[name] for axis, name in axes.items()} for axes in program.axes), *({} for _ in held))
    exported = torch.export.export(traced, arguments, dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(exported, package_path=target)


def _traced(program: Program, architecture: Architecture, network: torch.nn.Module, arguments: Inputs) -> Any:
    """The operations of a program as a graph, derivatives included, for any sizes."""
    from torch.fx.experimental import _config
    from torch.fx.experimental.proxy_tensor import make_fx

    names, count = list(tensors(network)), len(program.axes)

    def run(*values: torch.Tensor) -> Inputs:
        held = dict(zip(names, values[count:], strict=True))
        return program.run(architecture, network, values[:count], held)

    einsum, duck = torch.backends.opt_einsum.enabled, _config.use_duck_shape
    with alone(), torch.jit.optimized_execution(False):
        try:
            torch.backends.opt_einsum.enabled = False  # its search takes the sizes of the example for constants
            _config.use_duck_shape = False  # and so would equal sizes of different axes
            return make_fx(run, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
        finally:
            torch.backends.opt_einsum.enabled, _config.use_duck_shape = einsum, duck


if __name__ == "__main__":
    main()
