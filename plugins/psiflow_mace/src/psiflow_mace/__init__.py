"""MACE potentials for psiflow."""

from __future__ import annotations

from psiflow_core.components import Potential
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_potentials() -> list[type[Potential]]:
    from psiflow_mace.potential import Mace

    return [Mace]
