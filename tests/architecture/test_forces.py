"""ASE's `get_forces` gives zeros on fixed atoms unless it is told not to; a label with them would teach zeros."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(file for folder in ("psiflow_core", "plugins", "benchmarks") for file in (ROOT / folder).rglob("*.py"))


def silent(file: Path) -> Iterator[str]:
    """Calls of a structure's `get_forces` that do not say whether constraints are applied."""
    for node in ast.walk(ast.parse(file.read_text())):
        asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get_forces"
        if asks and "apply_constraint" not in {keyword.arg for keyword in node.keywords}:
            yield f"{file.relative_to(ROOT)}:{node.lineno}"


def test_whoever_asks_for_forces_says_whether_fixed_atoms_have_any() -> None:
    assert [place for file in SOURCES for place in silent(file)] == []
