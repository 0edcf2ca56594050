"""Policies for walkers: how long a segment is, at which temperature, and what resets a walker."""

from __future__ import annotations

import hashlib

from pydantic import PositiveFloat, PositiveInt

from psiflow_core.components import Policy
from psiflow_core.learning.schemes import Biases
from psiflow_core.sampling import Limits


class Segments(Policy):
    """What one sampling task does with a walker."""

    steps: PositiveInt = 500
    """Steps of a segment; a new model is picked up at the next one."""
    check_every: PositiveInt = 10
    """Steps between two looks of the monitor."""
    stride: PositiveInt | None = None
    """Steps between frames of the trajectory that is kept; None keeps none."""
    batch: PositiveInt | None = None
    """Walkers that share a prediction; None chooses by the size of the system and the device."""


class Ramp(Policy):
    """A temperature that rises, or falls, with the labels that the campaign has."""

    start: PositiveFloat
    """Temperature at the first label. [K]"""
    end: PositiveFloat
    """Temperature when the budget of labels is spent. [K]"""

    def temperature(self, progress: float) -> float:
        """The temperature at a fraction of the budget. [K]"""
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)


class PressureRamp(Policy):
    """A pressure that rises, or falls, with the labels that the campaign has."""

    start: float
    """Pressure at the first label. [bar]"""
    end: float
    """Pressure when the budget of labels is spent. [bar]"""

    def pressure(self, progress: float) -> float:
        """The pressure at a fraction of the budget. [bar]"""
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)


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
    ramp: Ramp | None = None
    """A temperature ramp over the campaign, for samplers with a temperature."""
    pressure_ramp: PressureRamp | None = None
    """A pressure ramp over the campaign, for samplers that are given a pressure."""
    bias: Biases = ()
    """Energies that are added to what moves the walkers: biases, and schemes (`Umbrella`, `Incremental`) that give
    each walker, or each segment, its own."""

    def ramped(self, progress: float) -> dict[str, float]:
        """The sampler's options that change with the campaign, at a fraction of its budget."""
        options = {}
        if self.ramp is not None:
            options["temperature"] = self.ramp.temperature(progress)
        if self.pressure_ramp is not None:
            options["pressure"] = self.pressure_ramp.pressure(progress)
        return options


def derive_seed(campaign: int, *parts: str | int) -> int:
    """A seed of its own for every use, from the campaign's: 0 ≤ seed < 2³¹."""
    text = "/".join(str(part) for part in (campaign, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


def _above(error: dict[str, float], force: float | None, energy: float | None) -> bool:
    too_much_force = force is not None and error["force_rmse"] > force
    too_much_energy = energy is not None and error["energy_per_atom"] > energy
    return too_much_force or too_much_energy
