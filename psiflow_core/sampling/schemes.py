"""How biases are spread over walkers, and how they move on from segment to segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from ase import Atoms
from pydantic import BeforeValidator, PositiveFloat, PositiveInt, SerializeAsAny

from psiflow_core.components import Bias, Place, Policy, Scheme
from psiflow_core.environments.catalogue import one_of
from psiflow_core.sampling.bias import MovingHarmonic
from psiflow_core.sampling.variables import AnyVariable

ARRIVED = "arrived"
"""Why a walker starts over that has come to the end of its path."""


class _Springs(Scheme):
    """A spring along a variable, at another place for each walker or each segment."""

    variable: AnyVariable
    """What it acts on."""
    start: float
    """Where the first centre is. [unit of the variable]"""
    stop: float
    """Where the last one is. [unit of the variable]"""
    stiffness: PositiveFloat
    """k of ½ k (s − s₀)². [eV/unit of the variable²]"""

    def check(self, structures: Sequence[Atoms]) -> None:
        self.variable.check(structures)

    def _pulls(self, target: float, after: int, steps: int) -> MovingHarmonic:
        return MovingHarmonic(variable=self.variable, stop=target, steps=steps, stiffness=self.stiffness, after=after)


class Umbrella(_Springs):
    """Walkers spread evenly over a variable, each on its own spring: umbrella sampling.

    Torrie and Valleau, J. Comput. Phys. 23, 187 (1977). In its first segment, and whenever it starts over, a walker is
    pulled evenly from where it starts to its centre.
    """

    name: ClassVar[str] = "umbrella"

    def at(self, place: Place) -> Bias:
        share = place.walker / max(1, place.walkers - 1)
        return self._pulls(self.start + share * (self.stop - self.start), 0, place.steps)


class Incremental(_Springs):
    """A spring that pushes each walker along a variable, a step further with every segment: incremental learning.

    It advances with segments that ended well. In the first half of a segment its centre moves evenly from where the
    walker is to where it has to go, in the second half it rests there; so a walker that was reset is pulled from its
    start to the centre that it has kept. At the end of the path it starts over.
    """

    name: ClassVar[str] = "incremental"

    steps: PositiveInt
    """Increments from start to stop."""

    def at(self, place: Place) -> Bias:
        share = min(place.stage / self.steps, 1.0)
        return self._pulls(self.start + share * (self.stop - self.start), place.step, max(1, place.steps // 2))


def _bias(given: Any) -> Any:
    return one_of("bias", given)


def _several(given: Any) -> Any:
    return given if isinstance(given, list | tuple) else (given,)


Biases = Annotated[
    tuple[Annotated[Bias | Scheme, BeforeValidator(_bias), SerializeAsAny()], ...], BeforeValidator(_several)
]
"""Biases and schemes, or the plain data of them; one may be given as it is."""


class Biased(Policy):
    """The biases on walkers, in addition to the potential."""

    bias: Biases = ()
    """Energies that are added to what moves the walkers: biases, and schemes (`Umbrella`, `Incremental`) that give
    each walker, or each segment, its own."""


def biases_at(place: Place, given: Sequence[Bias | Scheme]) -> list[Bias]:
    """What acts on a walker in its next segment."""
    return [one.at(place) if isinstance(one, Scheme) else one for one in given]


def last_stage(given: Sequence[Bias | Scheme]) -> int | None:
    """The stage that ends the path of incremental learning; None without it."""
    stages = [one.steps for one in given if isinstance(one, Incremental)]
    return max(stages, default=None)
