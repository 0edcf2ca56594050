"""Examples and pages show what users write: public names, and results instead of files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PLUGINS = ROOT / "docs" / "writing-a-plugin.md"
"""Its readers write components, and import contracts."""

OVER_DATA = {"biased-sampling.md": ["psiflow_core.sampling"]}
"""The functions of variables and biases over a data set, which have the same name, `values`."""


def inner_modules(code: str) -> list[str]:
    """The modules inside psiflow that a program imports."""
    nodes = list(ast.walk(ast.parse(code)))
    found = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    found += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return [name for name in found if name.startswith("psiflow_core.")]


def globs(code: str) -> list[str]:
    """The patterns by which a program looks for files."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    named = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr in ("glob", "rglob")]
    return [ast.unparse(node) for node in named]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_imports_public_names_only_and_looks_for_no_files(file: Path) -> None:
    code = file.read_text()
    assert inner_modules(code) == []
    assert globs(code) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != PLUGINS], ids=lambda page: page.name)
def test_a_page_imports_public_names_only_and_looks_for_no_files(page: Path) -> None:
    for code in BLOCK.findall(page.read_text()):
        assert set(inner_modules(code)) <= set(OVER_DATA.get(page.name, []))
        assert globs(code) == []


def test_a_whole_learning_loop_of_ones_own_is_short() -> None:
    code = (ROOT / "examples" / "own_loop.py").read_text()
    assert len(code.splitlines()) <= 40
