"""When a walker is stopped: the core's monitor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from pydantic import Field, PositiveFloat

from psiflow_core.checks import closest_pair
from psiflow_core.components import (
    Monitor,
    Policy,
    Prediction,
)
from psiflow_core.constraints import fixed_atoms
from psiflow_core.errors import StructureError
from psiflow_core.sampling.bias import WalkerBias
from psiflow_core.sampling.momenta import degrees_of_freedom

UNCERTAIN = "uncertain"
"""The reason of a stop that yields a candidate; every other reason resets the walker."""


BLOCK_ENDS = "its block ends"
"""The reason of a stop that only shortens the segment: the walker goes on in another block."""


class Limits(Policy):
    """When a walker must stop. Checked every `check_every` steps, for every sampler alike."""

    deviation: PositiveFloat = 0.5
    """A structure with an atom whose committee spread is above this is a candidate, and its segment stops. [eV/Å]"""
    lost: PositiveFloat = 5.0
    """Above this spread a structure is taken for unphysical: no label, the walker is reset. [eV/Å]"""
    force: PositiveFloat = 50.0
    """Largest force on an atom, free or fixed. [eV/Å]"""
    distance: PositiveFloat = 0.5
    """Smallest distance between two atoms. [Å]"""
    temperature_quantile: float = Field(default=1e-9, gt=0, lt=0.5)
    """A walker is too hot when the chance of so high a kinetic energy, by the χ² distribution of its degrees
    of freedom at the sampler's temperature, is below this."""


@dataclass(frozen=True)
class Checked:
    """A structure at which the committee was asked."""

    step: int
    structure: Atoms
    prediction: Prediction

    @property
    def deviation(self) -> float:
        """The largest spread of any atom's force; 0 for a committee of one. [eV/Å]"""
        spread = self.prediction.deviation
        return 0.0 if spread is None else float(np.max(spread))


class Watch:
    """The monitor of one walker.

    Args:
        ends: whether the segment has to end at this check.
    """

    def __init__(
        self,
        limits: Limits,
        ask: Callable[[Atoms], Prediction],
        temperature: float | None,
        ends: Callable[[], bool] = lambda: False,
    ) -> None:
        self._limits = limits
        self._ends = ends
        self._ask = ask
        self._temperature = temperature
        self.most_uncertain: Checked | None = None

    def __call__(self, step: int, structure: Atoms) -> str | None:
        """The reason to stop here, if there is one; the cheap checks come first."""
        reason = self._unsound(structure)
        if reason:
            return reason
        checked = Checked(step, structure.copy(), self._ask(structure))
        if np.linalg.norm(checked.prediction.forces, axis=1).max() > self._limits.force:
            return "force ceiling"
        if checked.deviation > self._limits.lost:
            return "lost"
        if self.most_uncertain is None or checked.deviation >= self.most_uncertain.deviation:
            self.most_uncertain = checked
        if checked.deviation > self._limits.deviation:
            return UNCERTAIN
        return BLOCK_ENDS if self._ends() else None

    def _unsound(self, structure: Atoms) -> str | None:
        known = (structure.positions, structure.get_momenta(), structure.cell)
        if not all(np.isfinite(values).all() for values in known):
            return "not finite"
        if closest_pair(structure, self._limits.distance):
            return "atoms too close"
        if self._temperature and too_hot(structure, self._temperature, self._limits.temperature_quantile):
            return "too hot"
        return None


def too_hot(structure: Atoms, temperature: float, quantile: float) -> bool:
    """Whether the kinetic energy is beyond chance: 2K/kT follows χ² with at most 3 degrees of freedom per free atom."""
    from scipy.stats import chi2

    scaled = 2 * _kinetic_energy(structure) / (units.kB * temperature)
    return bool(scaled > chi2.isf(quantile, degrees_of_freedom(structure, drifts=True)))


def _kinetic_energy(structure: Atoms) -> float:
    """Of the atoms that are free to move. [eV]"""
    free = ~fixed_atoms(structure)
    return float(0.5 * (structure.get_momenta()[free] ** 2 / structure.get_masses()[free, None]).sum())


def refuse_hot(starts: Sequence[Atoms], temperature: float | None, quantile: float) -> None:
    """Refuse momenta with which a walker would be stopped at once.

    Args:
        temperature: the sampler's, None if it has none. [K]
        quantile: as in `Limits.temperature_quantile`.

    Raises:
        StructureError: the first start that is too hot.
    """
    for number, structure in enumerate(starts):
        if temperature and too_hot(structure, temperature, quantile):
            kelvin = 2 * _kinetic_energy(structure) / (units.kB * degrees_of_freedom(structure, drifts=True))
            raise StructureError(
                f"start structure {number} ({structure.get_chemical_formula()}): it has momenta of "
                f"{kelvin:.0f} K, and the sampler is at {temperature:g} K: a walker would be "
                "stopped as too hot at once; remove them: del atoms.arrays['momenta']"
            )


def remembering(monitor: Monitor, bias: WalkerBias) -> Monitor:
    """A monitor that shows every sound structure to a bias."""

    def look(step: int, structure: Atoms) -> str | None:
        reason = monitor(step, structure)
        if reason in (None, UNCERTAIN, BLOCK_ENDS):
            bias.look(step, structure)
        return reason

    return look
