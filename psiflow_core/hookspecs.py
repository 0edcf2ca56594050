"""The four hooks: a plugin implements those it has something for, and returns classes."""

from __future__ import annotations

import pluggy

from psiflow_core.components import Executor, Potential, Reference, Sampler

hookspec = pluggy.HookspecMarker("psiflow")
hookimpl = pluggy.HookimplMarker("psiflow")


@hookspec
def psiflow_potentials() -> list[type[Potential]]:  # type: ignore[empty-body]
    """Trainable architectures."""


@hookspec
def psiflow_samplers() -> list[type[Sampler]]:  # type: ignore[empty-body]
    """Ways to move through phase space."""


@hookspec
def psiflow_references() -> list[type[Reference]]:  # type: ignore[empty-body]
    """Levels of theory."""


@hookspec
def psiflow_executors() -> list[type[Executor]]:  # type: ignore[empty-body]
    """Ways to get workers."""
