"""Which labels are held out for validation."""

from __future__ import annotations

from math import floor


def is_held_out(number: int, fraction: float) -> bool:
    """Whether the label of this number is held out: the fraction, evenly spread. Growing data keep their split."""
    before, after = (floor(count * fraction + 0.5) for count in (number, number + 1))
    return after > before
