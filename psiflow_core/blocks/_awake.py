"""Runs a program of Parsl by a clock that stands still while the process is suspended.

``python -m psiflow_core.blocks._awake MODULE ARGUMENTS…``. Interchange and managers part when they have not heard
of each other for some seconds. When a batch system, or a laptop's lid, has suspended them together, each would take
the other for dead on waking, and tasks that compute would be lost. Neither does a clock that is set alter anything.
"""

from __future__ import annotations

import runpy
import sys
import time
from types import ModuleType
from typing import Any

from psiflow_core.leases import Awake

LONGEST = 5.0
"""Seconds between two looks at the clock; both programs look more often. A longer pause was no time awake."""


class AwakeTime(ModuleType):
    """The module `time`, but for the time of day: that goes on from the start by seconds awake."""

    def __init__(self) -> None:
        super().__init__("time")
        self._began, self._seen = time.time(), Awake(LONGEST)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        """[s since the epoch]"""
        return self._began + self._seen()


def main() -> None:
    del sys.argv[0]
    sys.modules["time"] = AwakeTime()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
