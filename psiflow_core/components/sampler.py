"""Samplers: the contract, and the walkers they move."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ase import Atoms

from psiflow_core.components.component import Component, Resources
from psiflow_core.kinds import Kind

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


@dataclass(frozen=True)
class Walker:
    """One running trajectory."""

    structure: Atoms
    """Positions, cell, and momenta once it has moved."""
    state: bytes | None = None
    """The sampler's data, beyond the structure, for an exact continuation; None at the start."""
    step: int = 0
    """Steps since the start."""


@dataclass(frozen=True)
class SamplingTask:
    steps: int
    """Steps of this segment."""
    seed: int
    """0 ≤ seed < 2³¹. Where the walker's state holds a stream of random numbers, that stream continues instead."""
    check_every: int = 10
    """Steps between two calls of the monitor; the last step is always checked."""
    stride: int | None = None
    """Steps between two frames of the trajectory; None keeps none."""
    resources: Resources = Resources()


Monitor = Callable[[int, Atoms], str | None]
"""Called with the step of the segment and the current structure, momenta included; returns None, or the
reason to stop the sampler. It evaluates the committee itself."""


@dataclass(frozen=True)
class Segment:
    walker: Walker
    """The walker at the end: continuing from here equals an uninterrupted trajectory."""
    steps: int
    """Number of steps taken."""
    stopped: str | None = None
    """The monitor's reason; None if the segment ran to its end."""
    finished: bool = False
    """Whether the trajectory has ended: a converged optimisation."""
    frames: list[Atoms] = field(default_factory=list)
    """The frames of the trajectory, with potential energy and forces in their calculators if the sampler computed
    them."""
    averages: dict[str, float] = field(default_factory=dict)
    """Means over the segment's checks: `temperature` [K], `potential_energy` [eV], `volume` [Å³] where they
    mean something."""


class Sampler(Component):
    """A method to move walkers through phase space."""

    kind: ClassVar[Kind] = "sampler"

    @abstractmethod
    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        """Move the walker for one segment.

        One call moves one walker; several may run at once, in threads of one process, and their force calls
        are then served by one batched prediction. The sampler gives momenta to a walker without them, from the
        Maxwell-Boltzmann distribution if it has a temperature.

        Exceptions of ``forces`` (`WalkerExploded`, for forces that are not finite) must pass through unchanged.
        """

    def target_temperature(self) -> float | None:
        """The expected kinetic temperature; None for samplers without a thermostat. [K]"""
        return None
