"""Molecular dynamics with OpenMM, under any potential."""

from __future__ import annotations

from psiflow_core.components import Sampler
from psiflow_core.hookspecs import hookimpl


@hookimpl
def psiflow_samplers() -> list[type[Sampler]]:
    from psiflow_openmm_sampler.sampler import OpenMM

    return [OpenMM]
