"""A killed campaign loses no label and pays for none twice: real processes, real kills. `make chaos` gives more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")


@pytest.mark.slow
def test_ten_killed_drivers_and_ten_killed_workers_cost_no_label(tmp_path: Path) -> None:
    command = [sys.executable, CHAOS, "--kills", "20", "--seed", "1", "--folder", tmp_path / "chaos"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    last = told.stdout.splitlines()[-1]
    number = {what: int(count) for what, count in re.findall(r"(driver|lost|twice):? (\d+)", last)}
    assert number == {"driver": 10, "lost": 0, "twice": 0}, last
