"""The plugins in the core, registered through the same hooks as everybody's."""

from __future__ import annotations

from psiflow_core.components import Executor, Reference, Sampler
from psiflow_core.hookspecs import hookimpl


@hookimpl
def psiflow_samplers() -> list[type[Sampler]]:
    from psiflow_core.builtin.ase_sampler import AseSampler, RandomDisplacement

    return [AseSampler, RandomDisplacement]


@hookimpl
def psiflow_references() -> list[type[Reference]]:
    from psiflow_core.builtin.ase_reference import AseReference

    return [AseReference]


@hookimpl
def psiflow_executors() -> list[type[Executor]]:
    from psiflow_core.builtin.executors import Local, Threads

    return [Local, Threads]
