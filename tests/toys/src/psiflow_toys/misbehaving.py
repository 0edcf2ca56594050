"""Calculators that do to a worker what engines do on a bad day; for `psiflow.reference("ase", calculator=…)`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator

SPINNING = "import time; print(flush=True)\nwhile True: time.sleep(0.01); sum(range(10000))"
SLEEPING = "import time; print(flush=True); time.sleep(600)"


class Misbehaving(Calculator):
    """Never answers.

    Args:
        how: `hangs`, `spins`, `eats` memory, `dies`, or `fails` with an exception.
        ranks: processes that it starts first, as an engine under MPI does.
        told: a file for the numbers of these processes.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, how: str, ranks: int = 0, told: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._how, self._ranks, self._told = how, ranks, told

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = None) -> None:
        script = SPINNING if self._how == "spins" else SLEEPING
        command = [sys.executable, "-c", script]
        ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) for _ in range(self._ranks)]
        for rank in ranks:
            assert rank.stdout is not None
            rank.stdout.readline()
        if self._told:
            Path(self._told).write_text(" ".join(str(rank.pid) for rank in ranks))
        {"hangs": _hang, "spins": _spin, "eats": _eat, "dies": _die, "fails": _fail}[self._how]()


def _hang() -> None:
    time.sleep(600)


def _spin() -> None:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        pass


def _eat() -> None:
    held = []
    while len(held) < 400:  # 40 GiB at the most
        held.append(b"x" * (100 * 2**20))
        time.sleep(0.05)


def _die() -> None:
    os.abort()


def _fail() -> None:
    raise RuntimeError("the engine has crashed")
