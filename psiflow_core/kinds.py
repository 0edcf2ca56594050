"""The kinds of components that plugins provide."""

from __future__ import annotations

from typing import Literal

Kind = Literal["potential", "sampler", "reference", "executor", "selection", "bias", "variable"]
