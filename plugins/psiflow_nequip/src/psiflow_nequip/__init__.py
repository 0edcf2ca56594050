"""NequIP and Allegro potentials for psiflow."""

from __future__ import annotations

from psiflow_core.components import Potential
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_potentials() -> list[type[Potential]]:
    from psiflow_nequip.potential import Allegro, Nequip

    return [Nequip, Allegro]
