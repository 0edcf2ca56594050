"""Policies for training: when a new generation is due, and its initial weights."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from psiflow_core.components import Policy
from psiflow_core.labels.split import is_held_out


class Training(Policy):
    """When the committee is trained, and how long. A step is one gradient step."""

    growth: PositiveFloat = 0.25
    """A new generation is due when the labels have grown by this fraction since the last one began."""
    fewest: PositiveInt = 4
    """A new generation waits for at least so many new labels, unless nothing else can be done."""
    warm_start: bool = True
    """Start a generation from the weights of the one before."""
    steps: PositiveInt | None = None
    """Steps of the first generation; None leaves it to the potential."""
    warm_steps: PositiveInt | None = None
    """Steps of a generation with a warm start; None leaves it to the potential."""
    final_steps: PositiveInt | None = None
    """Steps of the last generation, trained when no more labels come; None leaves it to the potential."""

    validation: float = Field(default=0.1, ge=0, le=0.5)
    """Fraction of the labels that is never trained on, and that early stopping looks at."""

    def due(self, fresh: int, known: int) -> bool:
        """Whether this many new labels are enough for a new generation, given the labels known to the newest."""
        return fresh >= max(self.fewest, self.growth * known)

    def subset(self, number: int) -> str:
        """The set of the label of this number: the `validation` fraction goes into the validation set, evenly."""
        return "validation" if is_held_out(number, self.validation) else "training"

    def length(self, warm: bool, final: bool) -> int | None:
        """Gradient steps of a training, with or without a parent."""
        if final:
            return self.final_steps
        return self.warm_steps if warm else self.steps
