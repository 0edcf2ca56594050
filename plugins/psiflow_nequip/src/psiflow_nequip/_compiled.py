"""Machine code for predictions, compiled once for each architecture and machine, and cached for later processes.

The weights are arguments of the code, so that all members of a committee, and their children, share it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from psiflow_torch.engine import Tensors, torch
from psiflow_torch.graphs import GraphBuilder, collate
from psiflow_torch.model import Model

from psiflow_core.errors import EngineMissing
from psiflow_core.structures import Plain, sha256
from psiflow_nequip._engine import quiet
from psiflow_nequip._network import inputs

INPUTS = ("pos", "edge_index", "atom_types", "cell", "edge_cell_shift", "batch", "num_atoms")
OUTPUTS = ("total_energy", "forces", "stress")

NUMBERS = ("avg_num_neighbors", "per_type_energy_scales", "per_type_energy_shifts")
"""Arguments of the builder that it keeps in tensors: the code does not depend on their values."""


class CompiledNetwork:
    """A compiled network: it takes the tensors of `inputs`, and returns energies, forces and stresses."""

    def __init__(self, model: Model, network: Any, device: torch.device) -> None:
        self._eager = network
        self._code = torch._inductor.aoti_load_package(str(code(model, network, device)))
        self._weights = [tensor.detach() for tensor in _tensors(network).values()]

    def __call__(self, tensors: Tensors) -> Tensors:
        if tensors["edge_index"].shape[1] < 2:
            return dict(self._eager(tensors))  # the code is compiled for sizes of two and more
        frames = len(tensors["num_atoms"])
        several = tensors if frames > 1 else _with_a_lone_atom(tensors)
        with torch.inference_mode():
            results = self._code(*(several[name] for name in INPUTS), *self._weights)
        output = dict(zip(OUTPUTS, results, strict=True))
        atoms = len(tensors["pos"])
        sizes = {"total_energy": frames, "forces": atoms, "stress": frames}
        return {name: tensor[: sizes[name]] for name, tensor in output.items()}


def code(model: Model, network: Any, device: torch.device) -> Path:
    """The file with the compiled code of a network's architecture; it is compiled if missing.

    Raises:
        EngineMissing: there is no C++ compiler.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psiflow-nequip"
    target = folder / f"{sha256(_identity(model, device))}.pt2"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(target.with_suffix(".lock")):
        if not target.exists():
            part = target.with_name(f"{target.stem}.{os.getpid()}.pt2")
            _make(model, network, device, part)
            part.replace(target)
    return target


def _identity(model: Model, device: torch.device) -> Plain:
    """Everything that the code depends on; the number of threads is fixed when it is compiled."""
    return {
        "plan": {name: value for name, value in model.plan.items() if name not in NUMBERS},
        "potential": model.potential,
        "dtype": model.dtype,
        "versions": {
            name: version(name)
            for name in ("torch", "e3nn", "nequip", "nequip-allegro", "psiflow-nequip", "psiflow-torch")
        },
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
    }


def _cpu() -> str:
    """The features of this processor: the code is compiled for it alone."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in facts if line.startswith(("flags", "Features"))), torch.__config__.show())


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(model: Model, network: Any, device: torch.device, target: Path) -> None:
    from nequip.data._key_registry import get_dynamic_shapes
    from nequip.nn.compile import ListInputOutputStateDictWrapper
    from nequip.utils.fx import nequip_make_fx

    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        raise EngineMissing(
            "compile=true needs a C++ compiler, and none is installed here: install g++, or set compile=false"
        )
    tensors = _tensors(network)
    weights = list(tensors.values())
    flat = ListInputOutputStateDictWrapper(network.model, INPUTS, OUTPUTS, list(tensors))
    builder = GraphBuilder(model.cutoff, model.symbols)
    clusters = [builder.graph(cluster(model.symbols, model.cutoff, count)) for count in (8, 12)]
    example = inputs(collate(clusters, device))
    sizes = {name: torch.export.Dim(f"num_{name}s", min=2) for name in ("graph", "node", "edge")}
    shapes = (*get_dynamic_shapes(INPUTS, sizes), *({} for _ in weights))
    with quiet():
        traced = nequip_make_fx(flat, example, INPUTS, weights)
        exported = torch.export.export(traced, (*(example[name] for name in INPUTS), *weights), dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(target))


def cluster(symbols: Sequence[str], cutoff: float, count: int) -> Atoms:
    """Atoms of all species with neighbours within the cutoff [Å]: an example structure for a model."""
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3)
    count = max(count, len(symbols))
    atoms = Atoms((list(symbols) * count)[:count], grid[:count] * cutoff / 2.5)
    atoms.rattle(cutoff / 50, seed=0)
    return atoms


def _tensors(network: Any) -> Tensors:
    """Weights and buffers by their names in the module that `GraphModel` wraps."""
    named = {**dict(network.model.named_parameters()), **dict(network.model.named_buffers())}
    return {name: tensor for name, tensor in named.items() if tensor.numel()}


def _with_a_lone_atom(tensors: Tensors) -> Tensors:
    """Add a second structure: an atom without neighbours."""

    def more(name: str, value: float, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.cat([tensors[name], tensors[name].new_full(shape, value)])

    return {
        **tensors,
        "pos": more("pos", 0.0, (1, 3)),
        "atom_types": more("atom_types", 0, (1,)),
        "batch": more("batch", 1, (1,)),
        "num_atoms": more("num_atoms", 1, (1,)),
        "cell": torch.cat([tensors["cell"], tensors["cell"]]),
    }
