"""A toy potential that lives in an environment of its own, for tests."""

from __future__ import annotations

import os

from psiflow_core.components import Potential
from psiflow_core.registry.hookspecs import hookimpl

if os.environ.get("PSIFLOW_TOY_BROKEN") == "plugin":
    raise ImportError("the toy is broken, as the test wants it")


@hookimpl
def psiflow_potentials() -> list[type[Potential]]:
    from psiflow_toys_elsewhere.potential import Distant

    return [Distant]
