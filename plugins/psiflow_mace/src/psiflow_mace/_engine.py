"""Torch and MACE, imported quietly, and the settings of torch that a training borrows and gives back."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from psiflow_core.errors import EngineMissing, OptionError


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what e3nn 0.4 makes newer versions of torch say, which no user can act on, and nothing else."""
    with warnings.catch_warnings():
        for message in (
            "The TorchScript type system doesn't support instance-level annotations",
            "Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD detected",
            r"`torch\.jit\.\w+` is (deprecated|not supported)",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


@contextmanager
def _without_notice() -> Iterator[None]:
    """Hold back the line that MACE prints at import about an accelerator that is not installed."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        said = [line for line in printed.getvalue().splitlines(True) if not line.startswith("cuequivariance")]
        sys.stdout.writelines(said)


try:
    with quiet(), _without_notice():
        import torch
        from mace import modules  # before e3nn, which torch >= 2.6 cannot import on its own

        from e3nn import o3  # isort: skip
except ImportError as error:
    hint = "install it: pip install psiflow-mace"
    raise EngineMissing(f"potential 'mace' needs MACE ({error}); {hint}") from error

__all__ = ["DTYPES", "modules", "o3", "on", "precision", "quiet", "threads", "torch"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Torch's default dtype, which MACE builds networks in, for as long as it takes."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(cores: int) -> Iterator[None]:
    """Torch's threads inside its operations, for as long as it takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on(device: str) -> torch.device:
    """The device of this name.

    Raises:
        OptionError: torch cannot reach it from here.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"device '{device}' was asked for, but torch finds no GPU here; use device 'cpu'")
    return torch.device(device)
