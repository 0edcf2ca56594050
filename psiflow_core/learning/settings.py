"""What a campaign is asked to do, apart from its three components and its structures."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from psiflow_core.components import Policy
from psiflow_core.learning.schemes import Incremental, last_stage
from psiflow_core.learning.selection import Bootstrap, Selection
from psiflow_core.learning.stopping import Budget, Stopping
from psiflow_core.learning.training import Training
from psiflow_core.learning.walkers import Walking


class Settings(Policy):
    """The policies of a campaign."""

    budget: Budget
    """What may be spent."""
    walkers: PositiveInt = 8
    """Trajectories at once."""
    committee: PositiveInt = 4
    """Models that differ in their seed; the spread of their forces is the uncertainty."""
    schedule: Literal["concurrent", "sequential"] = "concurrent"
    """`concurrent`: nothing waits. `sequential`: all walkers, then all labels, then training, and again."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Every other seed is derived from it."""
    bootstrap: Bootstrap = Bootstrap()
    """Structures to begin with."""
    walking: Walking = Walking()
    """Segments, monitor, resets, temperature ramp."""
    selection: Selection = Selection()
    """Which candidates are labelled."""
    training: Training = Training()
    """When and how long the committee is trained."""
    stopping: Stopping = Stopping()
    """When to end before the budget does."""

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if sum(isinstance(bias, Incremental) for bias in self.walking.bias) > 1:
            raise ValueError("walking.bias: 'incremental' twice; a walker can go along one path")
        return self

    @model_validator(mode="after")
    def _thresholds_are_in_order(self) -> Self:
        wanted, limits = self.selection.deviation, self.walking.limits
        if not wanted <= limits.deviation < limits.lost:
            raise ValueError(
                f"selection.deviation ({wanted}) ≤ walking.limits.deviation ({limits.deviation}) < "
                f"walking.limits.lost ({limits.lost}) must hold: worth a label, stops the walker, is unphysical"
            )
        return self

    @property
    def patience(self) -> int:
        """Segments without a candidate that say that nothing new is met: with a path before them, all of it."""
        last = last_stage(self.walking.bias)
        return max(self.stopping.patience, 0 if last is None else last + 1)

    @property
    def batch(self) -> int:
        """Walkers that share a prediction at most."""
        return self.walking.segment.batch or self.walkers
