"""What a campaign is asked to do, apart from its three components and its structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from psiflow_core.components import Bias, Policy, Scheme
from psiflow_core.learning.policies.bootstrap import Bootstrap
from psiflow_core.learning.policies.conditions import Walkers, groups_of, one_group
from psiflow_core.learning.policies.stopping import Budget, Stopping
from psiflow_core.learning.policies.training import Training
from psiflow_core.learning.policies.walkers import Walking
from psiflow_core.sampling.schemes import Incremental, last_stage
from psiflow_core.strategies.naming import AnyStrategy
from psiflow_core.strategies.uncertain import Uncertain


class Settings(Policy):
    """The policies of a campaign."""

    budget: Budget
    """What may be spent."""
    walkers: Annotated[int | tuple[Walkers, ...], BeforeValidator(groups_of)] = 8
    """Trajectories at once: a number, or groups under conditions of their own, `[psiflow.Walkers(8,
    temperature=300), psiflow.Walkers(8, temperature=600)]`."""
    committee: PositiveInt = 4
    """Models that differ in their seed; the spread of their forces is the uncertainty."""
    schedule: Literal["concurrent", "sequential"] = "concurrent"
    """`concurrent`: nothing waits. `sequential`: all walkers, then all labels, then training, and again."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Every other seed is derived from it."""
    bootstrap: Bootstrap = Bootstrap()
    """Structures to begin with."""
    walking: Walking = Walking()
    """Segments, monitor, resets, ramps, biases."""
    selection: AnyStrategy = Uncertain()
    """Which candidates are labelled, and in which order: `psiflow.selection(…)`, or a name."""
    training: Training = Training()
    """When and how long the committee is trained."""
    stopping: Stopping = Stopping()
    """When to end before the budget does."""

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        for given, of in [(self.walking.bias, "walking"), *((group.bias or (), "walkers") for group in self.groups)]:
            if sum(isinstance(bias, Incremental) for bias in given) > 1:
                raise ValueError(f"{of}.bias: 'incremental' twice; a walker can go along one path")
        return self

    @model_validator(mode="after")
    def _thresholds_are_in_order(self) -> Self:
        limits = self.walking.limits
        wanted = self.selection.threshold if isinstance(self.selection, Uncertain) else 0.0
        if not wanted <= limits.deviation < limits.lost:
            raise ValueError(
                f"selection.threshold ({wanted}) ≤ walking.limits.deviation ({limits.deviation}) < "
                f"walking.limits.lost ({limits.lost}) must hold: worth a label, stops the walker, is unphysical"
            )
        return self

    @property
    def groups(self) -> tuple[Walkers, ...]:
        """The walkers by their conditions: numbers of walkers follow each other group by group."""
        return self.walkers if isinstance(self.walkers, tuple) else one_group(self.walkers)

    @property
    def trajectories(self) -> int:
        """Walkers of all groups."""
        return sum(group.count for group in self.groups)

    def group_of(self, walker: int) -> tuple[int, int]:
        """The number of a walker's group, and its own number in that group."""
        for number, group in enumerate(self.groups):
            if walker < group.count:
                return number, walker
            walker -= group.count
        raise IndexError(f"there are {self.trajectories} walkers")

    def bias_of(self, group: Walkers) -> Sequence[Bias | Scheme]:
        """The biases and schemes that act on a group."""
        return self.walking.bias if group.bias is None else group.bias

    @property
    def patience(self) -> int:
        """Segments without a candidate that say that nothing new is met: with a path before them, all of it."""
        lasts = [last_stage(self.bias_of(group)) for group in self.groups]
        return max(self.stopping.patience, *(0 if last is None else last + 1 for last in lasts))

    @property
    def batch(self) -> int:
        """Walkers that share a prediction at most."""
        return self.walking.segment.batch or self.trajectories
