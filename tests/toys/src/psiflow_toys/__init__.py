"""Components that cost nothing, for tests: potentials, references, samplers and executors, and some that break their
contracts."""

from __future__ import annotations

from psiflow_core.components import Bias, Executor, Potential, Reference, Sampler, Scheme, SelectionStrategy, Variable
from psiflow_core.registry.hookspecs import hookimpl


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
    from psiflow_toys.batch import ToyBatch
    from psiflow_toys.executor import ToyBlocks, ToyUnguarded

    return [ToyBatch, ToyBlocks, ToyUnguarded]


@hookimpl
def psiflow_selections() -> list[type[SelectionStrategy]]:
    from psiflow_toys.policies import Alternate

    return [Alternate]


@hookimpl
def psiflow_biases() -> list[type[Bias | Scheme]]:
    from psiflow_toys.policies import Pen

    return [Pen]


@hookimpl
def psiflow_variables() -> list[type[Variable]]:
    from psiflow_toys.policies import Spread

    return [Spread]
