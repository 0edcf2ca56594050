"""Molecular dynamics with OpenMM, with any potential."""

from __future__ import annotations

from psiflow_core.components import Sampler
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_samplers() -> list[type[Sampler]]:
    from psiflow_openmm_sampler.sampler import OpenMM

    return [OpenMM]
