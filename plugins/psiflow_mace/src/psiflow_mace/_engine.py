"""Quiet imports of MACE."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from psiflow_core.errors import EngineMissing


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
        from mace import modules  # before e3nn, which torch >= 2.6 cannot import on its own

        from e3nn import o3  # isort: skip
        from mace.tools.compile import disable_e3nn_codegen
except ImportError as error:
    hint = "install it: pip install psiflow-mace"
    raise EngineMissing(f"potential 'mace' needs MACE ({error}); {hint}") from error

__all__ = ["disable_e3nn_codegen", "modules", "o3", "quiet"]
