"""A potential, a reference and executors that cost nothing, for tests."""

from __future__ import annotations

from psiflow_core.components import Executor, Potential, Reference
from psiflow_core.hookspecs import hookimpl


@hookimpl
def psiflow_potentials() -> list[type[Potential]]:
    from psiflow_toys.potential import ToyPotential

    return [ToyPotential]


@hookimpl
def psiflow_references() -> list[type[Reference]]:
    from psiflow_toys.reference import ToyReference

    return [ToyReference]


@hookimpl
def psiflow_executors() -> list[type[Executor]]:
    from psiflow_toys.executor import ToyBlocks, ToyUnguarded

    return [ToyBlocks, ToyUnguarded]
