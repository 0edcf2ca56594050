"""Policies for the end: what a campaign may spend, when it knows enough, and when it must give up."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from psiflow_core.components import Policy

ATTEMPTS = 3
"""How often a task is started before its failure is final."""

MACHINE = ("lost worker", "memory", "hung")
"""Reasons of failures that are not the task's fault, or not at once."""

ENDED = (*MACHINE, "wall time")
"""Reasons of failures of which the worker did not come back."""

ALIKE = "MembersAlike"
"""The failure of a plugin whose trainings all come to the same model."""

WRONG = ("WrongAnswer", ALIKE)
"""Failures of plugins that do not keep their contract: nothing that they say can be believed."""

FINAL = ("ReferenceFailed", "StructureError", "OptionError", "EngineMissing", "PluginNotFound", "PluginBroken", *WRONG)
"""Failures that would only repeat."""


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

        What the machine did to it is worth another attempt, and so is a training that diverged, with another
        seed, and what nobody foresaw; what the physics or the input did to it is not. What took too long would
        take as long again, but for a training, which goes on from its checkpoint.
        """
        if reason == "wall time" and kind != "train":
            return False
        return attempts < ATTEMPTS and (reason in MACHINE or type not in FINAL)
