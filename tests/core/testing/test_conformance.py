"""The contracts catch what breaks a promise, each by the check that is made for it, and say what they saw."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from psiflow_toys import wrong_contracts
from psiflow_toys.wrong_contracts import CAUGHT

Outcomes = dict[str, dict[str, str]]
"""By test class and check: what it came to."""


def run(file: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, as whoever writes a plugin runs it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, *words, str(file)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("wrong")
    done = run(Path(wrong_contracts.__file__), folder, f"--junitxml={folder / 'found.xml'}")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: Outcomes = {}
    for case in ElementTree.parse(folder / "found.xml").iter("testcase"):
        name = case.attrib["classname"].rpartition(".Test")[2]
        check = case.attrib["name"].partition("[")[0]
        result = next((part.tag for part in case if part.tag in ("failure", "error", "skipped")), "passed")
        worst = found.setdefault(name, {})
        worst[check] = result if worst.get(check) in (None, "passed") else worst[check]
    return found


def caught(of: dict[str, str]) -> Iterator[str]:
    yield from (check for check, result in of.items() if result in ("failure", "error"))


SEVERAL = {
    "NeverAsks",
    "NeverStops",
    "MiscountsSteps",
    "MisreportsSteps",
    "Undetermined",
    "NeverMoves",
    "Hangs",
    "Remembers",
    "PotentialRemembers",
    "PotentialOtherOrder",
    "CountsQuestions",
}
"""Toys whose fault several checks see, the one that is made for it among them."""


@pytest.mark.parametrize("name", [*CAUGHT])
def test_what_breaks_one_promise_is_caught_by_its_check(name: str, outcomes: Outcomes) -> None:
    expected, found = CAUGHT[name][3], set(caught(outcomes[name]))
    if name in SEVERAL:
        assert found >= expected
    else:
        assert found == expected


def test_an_ability_that_is_not_offered_is_skipped_with_its_reason(outcomes: Outcomes) -> None:
    assert outcomes["PotentialNoFeatures"]["test_features_do_not_turn_with_the_structure"] == "skipped"
    assert outcomes["SoundPotential"]["test_an_export_is_written_where_it_is_asked_for"] == "skipped"


THIRD_PARTY = """
from psiflow_toys.reference import ToyReference
from psiflow_core.testing import ReferenceContract

class Tired(ToyReference):
    def label(self, structure, task):
        label = super().label(structure, task)
        return type(label)(label.energy, label.forces * 0.5, label.stress)

class TestTired(ReferenceContract):
    component = Tired
"""


@pytest.mark.parametrize("module", ["psiflow_core.testing", "psiflow_core.testing.reference"])
def test_a_failure_shows_whoever_writes_a_plugin_what_was_compared(module: str, tmp_path: Path) -> None:
    file = tmp_path / "test_contract.py"
    file.write_text(THIRD_PARTY.replace("psiflow_core.testing", module))
    done = run(file, tmp_path, "-k", "gradient")
    assert done.returncode == 1
    assert "E       assert" in done.stdout
    assert "comparison failed" in done.stdout or "== " in done.stdout
    assert "Obtained:" in done.stdout


def test_a_check_that_is_known_to_fail_needs_a_name_that_exists(tmp_path: Path) -> None:
    file = tmp_path / "test_contract.py"
    file.write_text(THIRD_PARTY + "    expected_failures = {'test_forces': 'they are halved'}\n")
    done = run(file, tmp_path)
    assert "expected_failures names no check of its contract: ['test_forces']" in done.stdout
