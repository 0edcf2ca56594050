"""Torch, NequIP and Allegro, imported without a trace, and torch's threads, borrowed and given back."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from psiflow_core.errors import EngineMissing, OptionError


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what e3nn and NequIP make torch say, which no user can act on, and nothing else."""
    with warnings.catch_warnings():
        for message in (
            r"`torch\.jit\.\w+` is (deprecated|not supported)",
            "The TorchScript type system doesn't support instance-level annotations",
            r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


try:
    with quiet():
        import torch
        from allegro.model import AllegroModel
        from nequip.model import NequIPGNNModel
        from nequip.utils import global_state
except ImportError as error:
    hint = "install them: pip install psiflow-nequip (the package `allegro` of PyPI is another one)"
    raise EngineMissing(f"potentials 'nequip' and 'allegro' need NequIP and Allegro ({error}); {hint}") from error

__all__ = ["BUILDERS", "on", "prepared", "quiet", "threads", "torch"]

BUILDERS = {"nequip": NequIPGNNModel, "allegro": AllegroModel}
"""By the name of the potential."""


@contextmanager
def prepared() -> Iterator[None]:
    """NequIP's settings of the process, without which it builds nothing, for as long as it takes.

    They are random seeds, environment variables and torch's default dtype. NequIP sets them once and relies on them
    from then on: it forgets here that it has, so that its own calculators in this process set them when they need them.
    """
    if global_state.global_state_initialized():
        yield
        return
    state, numbers = random.getstate(), np.random.get_state()
    dtype, generator = torch.get_default_dtype(), torch.get_rng_state()
    variables = set(os.environ)
    try:
        with quiet():
            global_state.set_global_state()
        yield
    finally:
        global_state._GLOBAL_STATE_INITIALIZED = False
        random.setstate(state)
        np.random.set_state(numbers)
        torch.set_default_dtype(dtype)
        torch.set_rng_state(generator)
        for name in set(os.environ) - variables:
            del os.environ[name]


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
