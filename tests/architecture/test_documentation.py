"""What the pages say is so: hooks have their real signatures, code runs, the tutorial's plugin works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from psiflow_core.cli import app
from psiflow_core.cli.request import read_request
from psiflow_core.execution.blocks import Batch
from psiflow_core.execution.context_file import EXAMPLE, KEYS
from psiflow_core.execution.yaml_file import YamlFile
from psiflow_core.labels.given import structures
from psiflow_core.registry import hookspecs
from psiflow_core.registry.plugins import HOOKS

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "writing-a-plugin.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page that are in this language."""
    return [code for found, code in BLOCK.findall(page.read_text()) if found == language]


def test_the_campaign_of_the_readme_is_the_demo() -> None:
    demo = (ROOT / "examples" / "acetaldehyde.py").read_text()
    assert demo.endswith(blocks(ROOT / "README.md", "python")[0]), "one folder, one campaign"


def test_the_yaml_of_the_readme_is_an_example() -> None:
    (shown,) = blocks(ROOT / "README.md", "yaml")
    assert any(file.read_text().endswith(shown) for file in EXAMPLES)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_as_a_file_is_a_campaign(file: Path) -> None:
    request = read_request(file)
    assert structures(request.paths["start"], "start")
    assert request.paths["folder"].resolve().parent == ROOT / "campaigns"


CLUSTERS = ROOT / "docs" / "clusters.md"


def test_the_context_on_the_page_about_clusters_has_the_keys_of_the_table(tmp_path: Path) -> None:
    (shown,) = blocks(CLUSTERS, "yaml")
    (tmp_path / "cluster.yaml").write_text(shown)
    document = YamlFile(tmp_path / "cluster.yaml", EXAMPLE)
    document.only(KEYS)
    table = CLUSTERS.read_text().partition("| key | contents |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", re.sub(r"\|[^|]*\|$", "", table, flags=re.MULTILINE))) == set(KEYS)


def test_the_options_of_executors_are_all_in_the_table() -> None:
    table = CLUSTERS.read_text().partition("| option | meaning |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(Batch.model_fields)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.parent.name + "/" + page.name
)
def test_what_a_page_points_at_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_commands_that_pages_show_exist() -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
    for page in PAGES:
        lines = "\n".join([*blocks(page, ""), *blocks(page, "console")])
        assert set(re.findall(r"^(?:\$ )?psiflow ([a-z]+)", lines, re.MULTILINE)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_table_has_a_row_twice(page: Path) -> None:
    """Rows are known by their first cell, where that is a name in code and no number of a measurement follows."""
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        names = re.findall(r"^\| *(`[^|]+`) *\|(?! *\d+ *\|)", table, re.MULTILINE)
        assert len(names) == len(set(names)), names


def signatures() -> dict[str, str]:
    """Every hook as it is declared."""
    tree = ast.parse(Path(hookspecs.__file__).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    returns = {node.name: ast.unparse(node.returns) for node in functions if node.returns}
    return {node.name: f"def {node.name}({ast.unparse(node.args)}) -> {returns[node.name]}" for node in functions}


def test_every_hook_is_looked_for() -> None:
    assert set(signatures()) == set(HOOKS.values())


@pytest.mark.parametrize("hook", HOOKS.values())
def test_every_hook_is_documented_with_its_real_signature(hook: str) -> None:
    assert f"{signatures()[hook]}: ..." in TUTORIAL.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_compiles(page: Path) -> None:
    assert page.is_file(), f"{page.relative_to(ROOT)} is missing: the page that people read first"
    for number, code in enumerate(blocks(page, "python")):
        compile(code, f"{page.name}, block {number}", "exec")


def test_the_readme_shows_python() -> None:
    readme = ROOT / "README.md"
    assert readme.is_file(), "README.md is missing: the page that people read first"
    assert blocks(readme, "python")


PIECES = ROOT / "docs" / "own-loops.md"


def test_the_code_about_the_pieces_runs(tmp_path: Path) -> None:
    """In the order of the page, with a toy in the place of the potential that takes time to train."""
    code = "\n".join(blocks(PIECES, "python"))
    trained = 'psiflow.potential("mace", r_max=4.0, num_channels=16, max_ell=2)'
    assert code.count(trained) == 1
    indented = "\n".join(f"    {line}" for line in code.replace(trained, 'psiflow.potential("toy")').splitlines())
    (tmp_path / "pieces.py").write_text(f'if __name__ == "__main__":\n{indented}\n')
    done = subprocess.run([sys.executable, "pieces.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of the tutorial, as its reader would type it; installed in `site` beside it."""
    folder = tmp_path_factory.mktemp("tutorial")
    for language in ("toml", "python"):
        for code in blocks(TUTORIAL, language):
            name = re.match(r"# (psiflow-\S+)\n", code)
            if name:
                file = folder / name[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    target = ["--target", str(folder / "site"), str(folder / "psiflow-born-mayer")]
    done = _python(folder, "-m", "pip", "install", *offline, *target)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_tutorial_is_short() -> None:
    (component,) = (code for code in blocks(TUTORIAL, "python") if code.startswith("# ") and "def label" in code)
    assert component.count("\n") <= 45


def test_the_plugin_of_the_tutorial_is_listed(tutorial: Path) -> None:
    done = _python(tutorial, "-m", "psiflow_core.cli", "plugins")
    assert done.returncode == 0, done.stderr
    assert re.search(r"reference +born-mayer +psiflow-born-mayer +0\.1\.0 +Ions that repel each other", done.stdout)


def test_the_options_of_the_tutorial_have_units(tutorial: Path) -> None:
    shown = _python(tutorial, "-m", "psiflow_core.cli", "plugins", "born-mayer").stdout
    assert re.search(r"length +float +> 0 +0\.3 +Å +Distance ρ over which it falls to a third\.", shown)


def test_the_plugin_of_the_tutorial_fulfils_its_contract(tutorial: Path) -> None:
    file = tutorial / "psiflow-born-mayer" / "tests" / "test_contract.py"
    done = _python(tutorial, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 15


CAMPAIGN_ON_IT = """
import psiflow_core as psiflow
from psiflow_core.execution.tasks.idle import IdleRequest
if __name__ == "__main__":
    executor = psiflow.executor("prepared", queue="short", setup="touch prepared")
    with psiflow.Context(executor, folder="pools") as context:
        print(context.run(IdleRequest(), timeout=120).failure)
"""

SITE = {
    "submit": 'setsid "$3" > "$3.out" 2>&1 < /dev/null & echo "$! $(basename "$3" .sh)" >> "$JOBS"; echo $!',
    "jobs": 'while read -r job name; do kill -0 "$job" 2>/dev/null && echo "$job $name R"; done < "$JOBS"; true',
    "end": 'kill "$@" 2>/dev/null; true',
}
"""The commands of a batch system, which is this machine."""


@pytest.fixture
def site(tutorial: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tutorial, where its batch system is."""
    (tutorial / "bin").mkdir(exist_ok=True)
    (tutorial / "jobs").touch()
    for name, script in SITE.items():
        command = tutorial / "bin" / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tutorial / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("JOBS", str(tutorial / "jobs"))
    return tutorial


def test_the_executor_of_the_tutorial_works(site: Path, tutorial: Path) -> None:
    (tutorial / "on_it.py").write_text(CAMPAIGN_ON_IT)
    done = _python(tutorial, "on_it.py")
    assert done.stdout == "None\n", done.stderr
    assert list(tutorial.glob("pools/pools/*/blocks/prepared"))


def test_the_executor_of_the_tutorial_fulfils_its_contract(site: Path) -> None:
    """The quick part of it, and one task."""
    file = site / "psiflow-born-mayer" / "tests" / "test_executor.py"
    part = "not outlive and not shell and not at_once and not lost"
    done = _python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", part, str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout


def _python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python, with the tutorial's plugin on its path."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
