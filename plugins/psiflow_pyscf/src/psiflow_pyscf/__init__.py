"""PySCF as a reference: molecules at Hartree-Fock, density-functional or MP2 level."""

from __future__ import annotations

from psiflow_core.components import Reference
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_references() -> list[type[Reference]]:
    from psiflow_pyscf.reference import PySCF

    return [PySCF]
