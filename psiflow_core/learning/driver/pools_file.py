"""`pools.json`: the states of a campaign's pools, written by its driver for `psiflow status`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from psiflow_core.errors import FileCorrupt
from psiflow_core.execution.blocks import PoolReport
from psiflow_core.files import read_sealed, write_sealed

NAME = "pools.json"

SOONEST = 3.0
"""The least time between two writes. [s]"""

LATEST = 30.0
"""The time after which the file is written again although nothing has changed. [s]"""

REPORTS = TypeAdapter(tuple[PoolReport, ...])


@dataclass(frozen=True)
class Seen:
    """What a driver wrote."""

    time: float
    """[s since the epoch]"""
    pools: tuple[PoolReport, ...]

    @property
    def age(self) -> float:
        """[s]"""
        return max(0.0, time.time() - self.time)


class PoolsFile:
    """The file, for the driver.

    Args:
        folder: the campaign's.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._written = -LATEST
        self._last: Sequence[PoolReport] = ()

    def keep(self, pools: Sequence[PoolReport]) -> None:
        """Write the states, if it is time to."""
        since = time.monotonic() - self._written
        if since < SOONEST or (since < LATEST and pools == self._last):
            return
        self._written, self._last = time.monotonic(), pools
        with contextlib.suppress(OSError):  # it is for people only; a full disk is reported elsewhere
            write_sealed(self._file, {"time": time.time(), "pools": [asdict(one) for one in pools]})


def read_pools(folder: Path) -> Seen | None:
    """What the driver of a campaign wrote last; None if that is missing or damaged."""
    try:
        plain = read_sealed(folder / NAME)
        return Seen(float(plain["time"]), REPORTS.validate_python(plain["pools"]))
    except (FileCorrupt, LookupError, ValidationError):
        return None
