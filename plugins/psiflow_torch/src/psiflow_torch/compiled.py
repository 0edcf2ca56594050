"""Machine code for predictions: compiled once for each architecture and kind of machine, and cached for all processes.

The weights are arguments of the code, so that all members of a committee, and their children, share it. It is used only
if it agrees with the network itself, each time it is loaded.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from psiflow_core.errors import EngineMissing
from psiflow_core.structures import Plain, sha256
from psiflow_torch.architecture import Architecture, Output
from psiflow_torch.compiler import compile_apart, example, flat, samples, tensors
from psiflow_torch.engine import alone, torch
from psiflow_torch.graphs import Batch
from psiflow_torch.model import Model

log = logging.getLogger("psiflow.torch")

FOLDER = "PSIFLOW_COMPILED"
"""The environment variable with the folder of compiled code, instead of `$XDG_CACHE_HOME/psiflow`."""

PAYS = 90.0
"""Time spent on predictions by all processes before code is compiled, which takes about as long. [s]"""

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""Between compiled code and the network: largest error of energies and forces, relative to the largest force, or to 1
eV/Å."""


Choice = Literal["auto", "always", "never"]


class Code:
    """The compiled code for the predictions of models of one shape on one device; files are shared by all processes."""

    def __init__(self, architecture: Architecture, model: Model, device: torch.device) -> None:
        self._architecture, self._model, self._device = architecture, model, device
        self._file = folder() / f"{sha256(_identity(architecture, model, device))}.pt2"
        self._spent = self._file.with_suffix(".seconds")

    @property
    def exists(self) -> bool:
        return self._file.exists()

    def pays(self, seconds: float) -> bool:
        """Whether it is time to compile, after so many more seconds of predictions without it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._spent.open("a") as file:
            file.write(f"{seconds:.1f}\n")
        return sum(float(line) for line in self._spent.read_text().split()) >= PAYS

    def load(self, network: torch.nn.Module, wait: bool) -> CompiledNetwork | None:
        """The compiled network with the weights of the model; it is compiled if missing.

        Args:
            network: of the model, with which new code has to agree. Code is compared with the traceable network each
                time that it is loaded.
            wait: whether to wait for another process that compiles it; else None if there is one.

        Raises:
            EngineMissing: there is no C++ compiler.
            RuntimeError: its results differ from those of the network.
        """
        is_new = not self.exists
        if is_new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with _one_process(self._file.with_suffix(".lock"), wait) as alone_here:
                if not alone_here:
                    return None
                if not self.exists:
                    self._compile()
        with alone():
            plain = self._architecture.traceable(self._model).to(self._device).eval().requires_grad_(False)
            compiled = CompiledNetwork(self._file, plain)
            self._compare(compiled, lambda batch: self._architecture.traced(plain, batch))
        if is_new:
            self._compare(
                compiled, lambda batch: self._architecture.forward(network, batch, stress=True, training=False)
            )
        return compiled

    def _compare(self, compiled: CompiledNetwork, eager: Callable[[Batch], Output]) -> None:
        """Compare the code with the network, for other structures than those it was compiled with."""
        for sizes in ((5,), (9, 3, 14)):
            batch = example(self._model, samples(self._model, sizes), self._device)
            here, there = eager(batch), compiled(batch)
            scale = max(1.0, float(here.forces.detach().abs().max()))
            for mine, its in ((here.energies, there.energies), (here.forces, there.forces)):
                error = float((mine.detach() - its).abs().max()) / scale
                if not error <= TOLERANCE[self._model.dtype]:
                    raise RuntimeError(f"{self._file} differs by {error:.2g} from the network; it is not used")

    def _compile(self) -> None:
        if not has_compiler():
            raise EngineMissing("compiling needs a C++ compiler, and none is installed here: install g++")
        log.info("compiles the predictions of potential '%s': %s", self._model.potential, self._file)
        part = self._file.with_name(f"{self._file.stem}.{os.getpid()}.pt2")
        compile_apart(self._architecture, self._model, self._device, part)
        part.replace(self._file)


class CompiledNetwork:
    """A compiled network: energies, forces and stresses of a batch."""

    def __init__(self, file: Path, network: torch.nn.Module) -> None:
        self._weights = [tensor.clone() for tensor in tensors(network).values()]
        self._code = torch._inductor.aoti_load_package(str(file))

    def __call__(self, batch: Batch) -> Output:
        if batch.count > 1:
            return self._ask(batch)
        both = self._ask(_with_a_lone_atom(batch))  # sizes of one are not among those that the code is compiled for
        assert both.stresses is not None
        return Output(both.energies[:1], both.forces[:-1], both.stresses[:1])

    def _ask(self, batch: Batch) -> Output:
        with torch.inference_mode():
            return Output(*self._code(*flat(batch), *self._weights))


def folder() -> Path:
    """Where compiled code is kept; raises RuntimeError if there is no home directory."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psiflow"


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def _identity(architecture: Architecture, model: Model, device: torch.device) -> Plain:
    """Everything that the code depends on; the number of threads is fixed when it is compiled."""
    return {
        "potential": model.potential,
        "plan": {name: value for name, value in model.plan.items() if name not in architecture.in_tensors},
        "weights": {name: list(tensor.shape) for name, tensor in model.weights.items()},
        "dtype": model.dtype,
        "cutoff": model.cutoff,
        "versions": {name: version(name) for name in ("torch", "psiflow-torch", *architecture.libraries)},
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
    }


def _cpu() -> str:
    """The features of this processor: the code is compiled for it alone."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in facts if line.startswith(("flags", "Features"))), torch.__config__.show())


@contextmanager
def _one_process(lock: Path, wait: bool) -> Iterator[bool]:
    """One process at a time; whether it is this one, which is always so after waiting."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _with_a_lone_atom(batch: Batch) -> Batch:
    """Add a second structure: an atom without neighbours."""

    def more(values: torch.Tensor, value: float) -> torch.Tensor:
        return torch.cat([values, values.new_full((1, *values.shape[1:]), value)])

    return Batch(
        positions=more(batch.positions, 0.0),
        species=more(batch.species, 0),
        edges=batch.edges,
        unit_shifts=batch.unit_shifts,
        shifts=batch.shifts,
        cells=torch.cat([batch.cells, torch.eye(3).to(batch.cells)[None]]),
        structure=more(batch.structure, 1),
        sizes=more(batch.sizes, 1),
    )
