"""CP2K as a reference: density-functional theory for crystals, liquids and molecules."""

from __future__ import annotations

from psiflow_core.components import Reference
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_references() -> list[type[Reference]]:
    from psiflow_cp2k.reference import CP2K

    return [CP2K]
