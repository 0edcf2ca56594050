"""PyTorch, and temporary settings of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from psiflow_core.errors import EngineMissing, OptionError

try:
    import torch
except ImportError as error:
    raise EngineMissing(f"potentials on PyTorch need torch ({error}); install it: pip install torch") from error

__all__ = ["DTYPES", "Tensors", "alone", "on", "precision", "threads", "torch"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}

Tensors = dict[str, torch.Tensor]


_settings = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """One thread at a time: a network is built with settings and random numbers of the whole process."""
    with _settings:
        yield


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Set torch's default dtype temporarily."""
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
