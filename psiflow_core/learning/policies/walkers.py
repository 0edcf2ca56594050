"""Policies for all walkers: how long a segment is, how their options ramp, and what resets a walker."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from psiflow_core.components import Policy
from psiflow_core.learning.policies.conditions import Ramp
from psiflow_core.sampling.monitor import Limits
from psiflow_core.sampling.schemes import Biases
from psiflow_core.sampling.segments import Segments


class ErrorThresholds(Policy):
    """What a model's error at its own candidate means, once the label is there: two different things."""

    reset_force: PositiveFloat | None = 1.0
    """The walker starts over when the RMSE of the predicted forces is above this. [eV/Å]"""
    reset_energy: PositiveFloat | None = None
    """The same for the energy. [eV/atom]"""
    discard_force: PositiveFloat | None = 10.0
    """The label is kept, but not trained on, when the RMSE of the predicted forces is above this. [eV/Å]"""
    discard_energy: PositiveFloat | None = None
    """The same for the energy. [eV/atom]"""

    suspect_force: PositiveFloat | None = 10.0
    """A label is flagged as suspicious, and used, when the RMSE of the predicted forces is so many times the
    committee's spread, and enough to reset the walker: it may belong to another electronic state. [1]"""
    suspect_energy: PositiveFloat | None = 0.3
    """A label is flagged as suspicious, and used, when the error of the predicted energy is above this. [eV/atom]"""

    def suspects(self, error: dict[str, float], deviation: float) -> bool:
        """Whether a person should look at a label. The committee's largest spread where it was met is in eV/Å."""
        far = self.suspect_force is not None and 0 < deviation * self.suspect_force < error["force_rmse"]
        energy = self.suspect_energy is not None and error["energy_per_atom"] > self.suspect_energy
        return (far and error["force_rmse"] > (self.reset_force or 0.0)) or energy

    def resets(self, error: dict[str, float]) -> bool:
        """Whether a walker whose candidate had this error starts over."""
        return _above(error, self.reset_force, self.reset_energy)

    def discards(self, error: dict[str, float]) -> bool:
        """Whether a label is too far from the model to be trained on."""
        return _above(error, self.discard_force, self.discard_energy)


class Walking(Policy):
    """All that concerns walkers."""

    segment: Segments = Segments()
    """Length of a segment, and how closely it is watched."""
    limits: Limits = Limits()
    """When the monitor stops a walker."""
    errors: ErrorThresholds = ErrorThresholds()
    """What follows from a model's error at its candidate."""
    ramps: dict[str, Ramp] = Field(default={})
    """Options of the sampler, by their names, that change with the labels: `{"temperature": Ramp(300, 900)}`."""
    bias: Biases = ()
    """Energies that are added to what moves the walkers: biases, and schemes (`Umbrella`, `Incremental`) that give
    each walker, or each segment, its own."""


def _above(error: dict[str, float], force: float | None, energy: float | None) -> bool:
    too_much_force = force is not None and error["force_rmse"] > force
    too_much_energy = energy is not None and error["energy_per_atom"] > energy
    return too_much_force or too_much_energy
