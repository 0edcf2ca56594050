"""Machine code: compiled once for each architecture and kind of machine, and cached for all processes.

The tensors of the network are arguments of the code, so that all members of a committee, and their children, share it.
It is used only if it agrees with the network itself, each time it is loaded.
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
from typing import Any

from psiflow_core.errors import EngineMissing
from psiflow_core.structures import Plain, sha256
from psiflow_torch.architecture import Architecture
from psiflow_torch.compiler import compile_apart
from psiflow_torch.engine import Tensors, alone, torch
from psiflow_torch.model import Model
from psiflow_torch.programs import Inputs, Program, tensors

log = logging.getLogger("psiflow.torch")

FOLDER = "PSIFLOW_COMPILED"
"""The environment variable with the folder of compiled code, instead of `$XDG_CACHE_HOME/psiflow`."""

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""Between compiled code and the network: the largest error of an output, relative to its largest value, or to 1."""

CHECKED = ((5, 4), (9, 3, 14))
"""Atoms of the clusters for which code is compared with the network: others than those it was compiled with."""

Eager = Callable[[Inputs], Inputs]
"""The same outputs without code."""


class Code:
    """The compiled code of a program for models of one shape on one device; files are shared by all processes.

    Args:
        eager: gives what new code is compared with: the outputs of the network as it is without code.
    """

    def __init__(
        self, program: Program, architecture: Architecture, model: Model, device: torch.device, eager: Eager
    ) -> None:
        self._program, self._architecture, self._model, self._device = program, architecture, model, device
        self._eager = eager
        self._file = folder() / f"{sha256(_identity(program, architecture, model, device))}.pt2"
        self._spent = self._file.with_suffix(".seconds")

    @property
    def exists(self) -> bool:
        return self._file.exists()

    def pays(self, seconds: float) -> bool:
        """Whether it is time to compile, after so many more seconds without code.

        If that is begun and not finished, because a block ends for instance, the time has to be spent again first.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._note(seconds)
        spent = sum(float(line) for line in self._spent.read_text().split())
        if spent < self._program.pays:
            return False
        self._note(-spent)
        return True

    def _note(self, seconds: float) -> None:
        with self._spent.open("a") as file:
            file.write(f"{seconds:.1f}\n")

    def load(self, wait: bool) -> Compiled | None:
        """The code with the tensors of the model; it is compiled if missing.

        Args:
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
            network = self._architecture.traceable(self._model).to(self._device)
            held = tensors(network)
            compiled = Compiled(self._file, {name: tensor.clone() for name, tensor in held.items()})
            self._compare(compiled, lambda inputs: self._program.run(self._architecture, network, inputs, held))
        if is_new:
            self._compare(compiled, self._eager)
        return compiled

    def _compare(self, compiled: Compiled, eager: Eager) -> None:
        for sizes in CHECKED:
            inputs = self._program.example(self._model, sizes, self._device)
            for mine, its in zip(eager(inputs), compiled(*inputs), strict=True):
                error = float((mine.detach() - its).abs().max()) / max(1.0, float(mine.detach().abs().max()))
                if not error <= TOLERANCE[self._model.dtype]:
                    raise RuntimeError(f"{self._file} differs by {error:.2g} from the network; it is not used")

    def _compile(self) -> None:
        if not has_compiler():
            raise EngineMissing("compiling needs a C++ compiler, and none is installed here: install g++")
        log.info("compiles the %s of potential '%s': %s", self._program.name, self._model.potential, self._file)
        part = self._file.with_name(f"{self._file.stem}.{os.getpid()}.pt2")
        compile_apart(self._program, self._architecture, self._model, self._device, part)
        part.replace(self._file)


class Compiled:
    """A compiled program with the tensors of a network."""

    def __init__(self, file: Path, held: Tensors) -> None:
        self.held = held
        """By name, in the order of the code's arguments."""
        self._code: Any = torch._inductor.aoti_load_package(str(file))

    def __call__(self, *inputs: torch.Tensor) -> Inputs:
        with torch.inference_mode():
            return tuple(self._code(*inputs, *self.held.values()))


def folder() -> Path:
    """Where compiled code is kept; raises RuntimeError if there is no home directory."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psiflow"


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def _identity(program: Program, architecture: Architecture, model: Model, device: torch.device) -> Plain:
    """Everything that the code depends on; the number of threads is fixed when it is compiled."""
    return {
        "program": program.name,
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
