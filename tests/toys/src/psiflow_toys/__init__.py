"""Components that cost nothing, for tests: potentials, references, samplers and executors, and some that break their
contracts."""

from __future__ import annotations

from psiflow_core.components import Executor, Potential, Reference, Sampler
from psiflow_core.hookspecs import hookimpl


@hookimpl
def psiflow_potentials() -> list[type[Potential]]:
    from psiflow_toys.faithless import FaithlessPotential
    from psiflow_toys.potential import ToyPotential

    return [ToyPotential, FaithlessPotential]


@hookimpl
def psiflow_references() -> list[type[Reference]]:
    from psiflow_toys.faithless import FaithlessReference
    from psiflow_toys.reference import ToyReference

    return [ToyReference, FaithlessReference]


@hookimpl
def psiflow_samplers() -> list[type[Sampler]]:
    from psiflow_toys.faithless import FaithlessSampler

    return [FaithlessSampler]


@hookimpl
def psiflow_executors() -> list[type[Executor]]:
    from psiflow_toys.executor import ToyBlocks, ToyUnguarded

    return [ToyBlocks, ToyUnguarded]
