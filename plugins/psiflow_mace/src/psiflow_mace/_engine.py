"""Quiet imports of torch and MACE, and temporary settings of torch."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from psiflow_core.errors import EngineMissing, OptionError


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's warnings about e3nn 0.4, which no user can act on, and no others."""
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
    """Suppress the line that MACE prints at import about an accelerator that is not installed."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        others = [line for line in printed.getvalue().splitlines(True) if not line.startswith("cuequivariance")]
        sys.stdout.writelines(others)


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
    """Set torch's default dtype, in which MACE builds networks, temporarily."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(cores: int) -> Iterator[None]:
    """Set the number of torch's threads within an operation, temporarily."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on(device: str) -> torch.device:
    """The device of this name.

    Raises:
        OptionError: torch finds no GPU here.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"device '{device}' was requested, but torch finds no GPU here; use device 'cpu'")
    return torch.device(device)
