"""The plugins in the core, registered through the same hooks as all others."""

from __future__ import annotations

from psiflow_core.components import Bias, Executor, Reference, Sampler, Scheme, SelectionStrategy, Variable
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_samplers() -> list[type[Sampler]]:
    from psiflow_core.builtin.ase_sampler import AseSampler
    from psiflow_core.builtin.random_displacement import RandomDisplacement

    return [AseSampler, RandomDisplacement]


@hookimpl
def psiflow_references() -> list[type[Reference]]:
    from psiflow_core.builtin.ase_reference import AseReference

    return [AseReference]


@hookimpl
def psiflow_executors() -> list[type[Executor]]:
    from psiflow_core.builtin.executors import Local, Threads
    from psiflow_core.builtin.parsl_provider import ParslProvider

    return [Local, ParslProvider, Threads]


@hookimpl
def psiflow_selections() -> list[type[SelectionStrategy]]:
    from psiflow_core.strategies.diverse import Diverse
    from psiflow_core.strategies.drawn import Random
    from psiflow_core.strategies.uncertain import Uncertain

    return [Uncertain, Diverse, Random]


@hookimpl
def psiflow_biases() -> list[type[Bias | Scheme]]:
    from psiflow_core.sampling import bias
    from psiflow_core.sampling.schemes import Incremental, Umbrella

    restraints: list[type[Bias | Scheme]] = [bias.Harmonic, bias.MovingHarmonic, bias.UpperWall, bias.LowerWall]
    return [*restraints, bias.Grid, bias.Metadynamics, bias.AseCalculator, bias.Plumed, Umbrella, Incremental]


@hookimpl
def psiflow_variables() -> list[type[Variable]]:
    from psiflow_core.sampling import variables

    geometry: list[type[Variable]] = [variables.Distance, variables.Angle, variables.Dihedral, variables.Coordination]
    return [*geometry, variables.Volume, variables.Function, variables.Combination]
