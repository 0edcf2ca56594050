"""Runs a Parsl program with a clock that stops while the process is suspended.

``python -m psiflow_core.execution.blocks._awake MODULE ARGUMENTS…``. Interchange and managers disconnect after
some seconds without a message from each other. If a batch system, or a laptop's lid, has suspended both, each
would take the other for dead on waking, and running tasks would be lost. Setting the system clock has no
effect either.
"""

from __future__ import annotations

import importlib
import runpy
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from psiflow_core.processes.limits import Awake

LONGEST = 5.0
"""The largest step of the clock. [s] Both programs read it more often; a longer pause means suspension."""


class AwakeTime(ModuleType):
    """The module `time`, except for the time of day, which advances from the start by the seconds awake."""

    def __init__(self) -> None:
        super().__init__("time")
        self._began, self._seen = time.time(), Awake(LONGEST)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        """[s since the epoch]"""
        return self._began + self._seen()


CLIENTS = ("azure", "boto3", "botocore", "google", "googleapiclient", "kubernetes")
"""The vendors' client libraries: Parsl imports all that are installed, for longer than all the rest of it takes."""


def import_parsl() -> None:
    """Import Parsl without the client libraries, of which interchange and workers have no need."""
    with _hidden(CLIENTS):
        importlib.import_module("parsl")


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Packages that are not yet imported cannot be: a task, later, can import them."""
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def main() -> None:
    del sys.argv[0]
    sys.modules["time"] = AwakeTime()
    import_parsl()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
