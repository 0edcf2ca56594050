"""A whole potential on psiflow-torch, for tests and as an example for authors."""

from __future__ import annotations

from psiflow_core.components import Potential
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_potentials() -> list[type[Potential]]:
    from psiflow_toys_torch.potential import Pairs

    return [Pairs]
