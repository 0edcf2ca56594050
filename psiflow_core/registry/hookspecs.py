"""The hooks: a plugin implements one for each kind of component that it offers, and returns classes."""

from __future__ import annotations

import pluggy

from psiflow_core.components import (
    Bias,
    Executor,
    Potential,
    Reference,
    Sampler,
    Scheme,
    SelectionStrategy,
    Variable,
)

hookspec = pluggy.HookspecMarker("psiflow")
hookimpl = pluggy.HookimplMarker("psiflow")


@hookspec
def psiflow_potentials() -> list[type[Potential]]:  # type: ignore[empty-body]
    """Trainable architectures."""


@hookspec
def psiflow_samplers() -> list[type[Sampler]]:  # type: ignore[empty-body]
    """Methods to move walkers through phase space."""


@hookspec
def psiflow_references() -> list[type[Reference]]:  # type: ignore[empty-body]
    """Levels of theory."""


@hookspec
def psiflow_executors() -> list[type[Executor]]:  # type: ignore[empty-body]
    """Sources of workers."""


@hookspec
def psiflow_selections() -> list[type[SelectionStrategy]]:  # type: ignore[empty-body]
    """Strategies to choose structures that are worth a label."""


@hookspec
def psiflow_biases() -> list[type[Bias | Scheme]]:  # type: ignore[empty-body]
    """Energies added to the potential that moves walkers."""


@hookspec
def psiflow_variables() -> list[type[Variable]]:  # type: ignore[empty-body]
    """Collective variables."""
