"""Quiet imports of NequIP and Allegro, and the settings of the process that they need."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from psiflow_torch.engine import torch

from psiflow_core.errors import EngineMissing


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's warnings about e3nn and NequIP, which no user can act on, and no others."""
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
        from allegro.model import AllegroModel
        from nequip.model import NequIPGNNModel
        from nequip.utils import global_state
except ImportError as error:
    hint = "install them: pip install psiflow-nequip (not PyPI's package `allegro`, which is something else)"
    raise EngineMissing(f"potentials 'nequip' and 'allegro' need NequIP and Allegro ({error}); {hint}") from error

__all__ = ["BUILDERS", "prepared", "quiet"]

BUILDERS = {"nequip": NequIPGNNModel, "allegro": AllegroModel}
"""By the name of the potential."""


@contextmanager
def prepared() -> Iterator[None]:
    """Apply NequIP's settings of the process temporarily: it builds no network without them.

    They are random seeds, environment variables and torch's default dtype. NequIP sets them once and then relies on
    them. Its note of having done so is cleared here, so that its own calculators in this process set them again.
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
