"""Sampled averages against exact ones, with a known chance that what is right is called wrong.

Round-off differs from processor to processor, and a chaotic trajectory with it: a fixed seed is another draw on every
machine. So each comparison must hold for nearly all seeds. PSIFLOW_SEED_SHIFT=7 runs such tests with other seeds.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.stats import chi2, t

SEED_SHIFT = int(os.environ.get("PSIFLOW_SEED_SHIFT", "0"))
"""Added to the seeds of all tests that sample."""

FALSE_ALARM = 1e-6
"""Chance that a right average is called wrong, if the parts it is the mean of are independent and normal. For parts
of some ten independent values of an exponential distribution it is ten times as high. There are some hundred
comparisons in the tests."""


def blocks(series: Any, number: int = 32) -> np.ndarray:
    """Averages of equal parts of a series, much longer than its memory: nearly independent, nearly normal."""
    values = np.asarray(series, float)
    return np.array([part.mean() for part in np.array_split(values, number)])


def assert_mean(parts: Any, expected: float, finds: float) -> None:
    """The mean of independent values is what it must be.

    Args:
        parts: averages of walkers or `blocks`.
        finds: an error that the test must find, or it has too few parts or too short ones.

    By Student's t, since the error is estimated from the parts: with ten of them and `FALSE_ALARM` the bound is not
    five standard errors but twelve.
    """
    values = np.asarray(parts, float)
    _assert(values.mean(), expected, values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1, finds)


def assert_alike(few: Any, many: Any, finds: float) -> None:
    """A few draws have the mean that many draws of the same distribution have; `finds` is that of `assert_mean`.

    The spread is taken from the many, so that the bound is five standard errors however few the few are.
    """
    few, many = np.asarray(few, float), np.asarray(many, float)
    error = many.std(ddof=1) * np.sqrt(1 / len(few) + 1 / len(many))
    _assert(few.mean(), many.mean(), error, len(many) - 1, finds)


def _assert(found: float, expected: float, error: float, freedom: int, finds: float) -> None:
    bound = float(t.isf(FALSE_ALARM / 2, freedom))
    told = f"{found:.5g} ± {error:.2g} where {expected:.5g} is right"
    # The error is an estimate itself: it is too large only if it is so beyond chance.
    surely = error * float(np.sqrt(freedom / chi2.isf(FALSE_ALARM, freedom)))
    if bound * surely > finds:
        raise AssertionError(f"{told}: an error of {finds:.2g} would not be found, only one of {bound * error:.2g}")
    if abs(found - expected) > bound * error:
        raise AssertionError(
            f"{told}: {abs(found - expected) / error:.1f} standard errors, and {bound:.1f} are allowed"
        )
