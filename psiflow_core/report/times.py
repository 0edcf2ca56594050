"""Formatting of time spans, and a forecast of the remaining time of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from psiflow_core.learning.machine.state import State

RECENT = 20
"""The number of latest labels of walkers whose pace is used for the forecast."""


FEWEST = 10
"""The number of labels of walkers that a forecast needs."""


def clock(seconds: float) -> str:
    """A time span as h:mm:ss."""
    whole = int(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def forecast(times: Sequence[float], known: int, budget: int, trained: float = 0.0) -> float | None:
    """The time until the budget of labels is spent, at the pace of the latest ones; None with too few labels. [s]

    A training is due when the labels have grown by a fraction: its share of the time goes with their logarithm.

    Args:
        times: when labels of walkers came: those of the bootstrap come faster, for they wait for no training. [s]
        known: the present number of labels.
        budget: the final number of labels.
        trained: fraction of the workers' time that went into training.
    """
    recent = times[-RECENT:]
    if len(recent) < FEWEST or known >= budget:
        return None
    first = known - len(recent) + 1
    by_number = (budget - known) / (known - first)
    by_growth = log(budget / known) / log(known / first)
    return (recent[-1] - recent[0]) * (trained * by_growth + (1 - trained) * by_number)


class Pace:
    """When the labels of walkers came, since the display began to look."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known = self._labels()
        self.times: list[float] = []
        """Of one label after the other. [s since the epoch]"""

    def look(self) -> None:
        """Take the time of what is new."""
        now = self._labels()
        self.times += [self._state.time] * (now - self._known)
        self._known = now

    def _labels(self) -> int:
        return self._state.count("labelled", ["walker"])
