"""How long a walker goes before it is looked at, and by which seed."""

from __future__ import annotations

import hashlib

from pydantic import PositiveInt

from psiflow_core.components import Policy


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


def derive_seed(campaign: int, *parts: str | int) -> int:
    """A separate seed for every use, derived from the campaign's: 0 ≤ seed < 2³¹."""
    text = "/".join(str(part) for part in (campaign, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF
