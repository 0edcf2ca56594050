"""A learning loop of one's own: a script that is killed and run again pays for no label twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from psiflow_toys.waiting import PATIENCE, wait_until

from psiflow_core.labels.store import read_label
from psiflow_core.structures import digest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"
MACE = 'psiflow.potential("mace", r_max=4.0, num_channels=16, max_L=0, max_ell=2)'
EMT = 'psiflow.reference("ase", calculator="emt")'
COUNTED = 'psiflow.reference("ase", calculator="psiflow_toys.counted:Counted", parameters={"log": "log", "delay": 0.2})'


def script(folder: Path, potential: str) -> Path:
    """The example, with a reference that writes down every computation."""
    code = EXAMPLE.read_text()
    assert code.count(MACE) == code.count(EMT) == 1
    file = folder / "own_loop.py"
    counted = COUNTED.replace('"log": "log"', f'"log": {str(folder / "log")!r}')  # a task has a folder of its own
    file.write_text(code.replace(MACE, potential).replace(EMT, counted))
    return file


def begun(folder: Path) -> list[str]:
    """The structures whose computation has begun, in that order."""
    log = folder / "log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line["structure"] for line in lines if line["what"] == "begun"]


def run(folder: Path, file: Path, computations: int | None = None) -> str:
    """Run the script to its end, or kill it once so many computations have begun."""
    paid = {digest(read_label(label)[0]) for label in folder.glob("campaigns/own_loop/labels/*/*.json")}
    before = len(begun(folder))
    process = subprocess.Popen([sys.executable, str(file)], cwd=folder, stdout=subprocess.PIPE, text=True)
    if computations is not None:
        wait_until(lambda: process.poll() is not None or len(begun(folder)) >= computations)
        process.kill()
    said = process.communicate(timeout=10 * PATIENCE)[0]
    assert not paid & set(begun(folder)[before:]), "a label that was there is computed again"
    return said


@pytest.mark.parametrize(
    "potential", ['psiflow.potential("toy")', pytest.param(MACE, marks=pytest.mark.slow)], ids=["toy", "mace"]
)
def test_a_loop_of_ones_own_that_is_killed_goes_on_and_pays_for_no_label_twice(potential: str, tmp_path: Path) -> None:
    file = script(tmp_path, potential)
    for computations in (5, 14, 20):
        run(tmp_path, file, computations)
    said = run(tmp_path, file)
    assert "minimum" in said
    paid = len(begun(tmp_path))
    assert paid >= 20
    assert run(tmp_path, file) == said, "what is finished is found"
    assert len(begun(tmp_path)) == paid
