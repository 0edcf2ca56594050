"""The engines of components: the packages that do their work."""

from __future__ import annotations

import importlib
import socket

from psiflow_core.components import (
    Component,
)
from psiflow_core.errors import EngineMissing
from psiflow_core.texts import said_by


def require_engine(component: Component | type[Component]) -> None:
    """Import the engine of a component.

    Raises:
        EngineMissing: the engine cannot be imported in this environment.
    """
    if not component.engine:
        return
    try:
        importlib.import_module(component.engine)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an engine's import can fail in any way, sys.exit among them
        raise EngineMissing(
            f"{component.kind} '{component.name}' needs '{component.engine}', which cannot be imported on the "
            f"worker {socket.gethostname()} ({type(error).__name__}: {said_by(error)}); install it there"
        ) from error


def engine_version(component: Component | type[Component]) -> str:
    """The version of the engine; empty if unknown."""
    return str(getattr(importlib.import_module(component.engine), "__version__", "")) if component.engine else ""
