"""Sampled averages against exact ones, with a known chance that what is right is called wrong.

Round-off differs from processor to processor, and a chaotic trajectory with it: a fixed seed is another draw on every
machine. So each comparison must hold for nearly all seeds. PSIFLOW_SEED_SHIFT=7 runs such tests with other seeds.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.stats import t

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
    error = values.std(ddof=1) / np.sqrt(len(values))
    bound = float(t.ppf(1 - FALSE_ALARM / 2, len(values) - 1)) * error
    found = values.mean()
    told = f"{found:.5g} ± {error:.2g} where {expected:.5g} is right, from {len(values)} parts"
    if bound > finds:
        raise AssertionError(f"{told}: an error of {finds:.2g} would not be found, only one of {bound:.2g}")
    if abs(found - expected) > bound:
        raise AssertionError(f"{told}: {abs(found - expected) / error:.1f} standard errors")


def assert_alike(few: Any, many: Any, finds: float) -> None:
    """A few draws have the mean that many draws of the same distribution have; `finds` is that of `assert_mean`.

    The spread is taken from the many, so that the bound is five standard errors however few the few are.
    """
    few, many = np.asarray(few, float), np.asarray(many, float)
    error = many.std(ddof=1) * np.sqrt(1 / len(few) + 1 / len(many))
    bound = float(t.ppf(1 - FALSE_ALARM / 2, len(many) - 1)) * error
    told = f"{few.mean():.5g} ± {error:.2g} where {many.mean():.5g} is right, from {len(few)} draws"
    if bound > finds:
        raise AssertionError(f"{told}: an error of {finds:.2g} would not be found, only one of {bound:.2g}")
    if abs(few.mean() - many.mean()) > bound:
        raise AssertionError(f"{told}: {abs(few.mean() - many.mean()) / error:.1f} standard errors")
