"""Policies for the end: budgets, convergence, and tolerated failures."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from psiflow_core.components import Policy
from psiflow_core.execution.failures import ATTEMPTS, worth_another


class Budget(Policy):
    """What a campaign may spend. A finished campaign goes on when it is run again with a larger budget."""

    labels: PositiveInt
    """Labels, those of the bootstrap included, isolated atoms and test structures apart."""
    generations: PositiveInt | None = None
    """Trainings of the committee, the final one apart."""
    hours: PositiveFloat | None = None
    """Wall time of the driver, over all its sessions. [h]"""


class Stopping(Policy):
    """When to end before the budget does."""

    patience: PositiveInt = 5
    """The campaign has converged when so many segments in a row of every walker gave no candidate."""
    tolerated_failures: float = Field(default=0.3, ge=0, le=1)
    """Fraction of labels that may fail; above it, from the fifth failure on, the campaign gives up."""

    def gives_up(self, failed: int, tried: int) -> bool:
        """Whether too many labels have failed."""
        return failed >= 5 and failed > self.tolerated_failures * tried

    def tries_again(self, kind: str, type: str, reason: str, attempts: int) -> bool:
        """Whether a task that failed this way is started once more.

        Failures of the machine and unexpected exceptions get another attempt, and a diverged training one with another
        seed. Failures caused by the physics or the input do not.
        """
        return attempts < ATTEMPTS and worth_another(kind, type, reason)
