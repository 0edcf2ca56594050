"""A task's folder is where it works, and where what it prints is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from psiflow_toys.campaigns import learning, run

import psiflow_core as psiflow
from psiflow_core.cli import main
from psiflow_core.errors import CampaignError
from psiflow_core.execution.context import Context
from psiflow_core.execution.scratch import KEPT, OUTPUT, inside, last_words, printing_to, shorten
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.perform import perform


def asked(folder: Path, how: str, structure: Atoms) -> LabelRequest:
    reference, place = psiflow.reference("faithless", how=how), folder / structure.get_chemical_formula()
    return LabelRequest(reference=reference, structure=structure, labels=folder / "labels", folder=place)


def test_two_labels_of_a_code_that_writes_into_its_working_directory_do_not_meet(
    workers: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = workers.desk()
    for name in ("H2O", "CH4"):
        desk.submit(name, asked(tmp_path, "writes a file", molecule(name)))
    ended = {}
    while len(ended) < 2:
        ended |= {outcome.key: outcome for outcome in desk.completed()}
    assert [outcome.failure for outcome in ended.values()] == [None, None]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["CH4", "H2O", "labels"]


def test_a_task_leaves_the_working_directory_as_it_was(tmp_path: Path) -> None:
    before = Path.cwd()
    assert perform("label", asked(tmp_path, "writes a file", molecule("H2O")).to_plain(), {})["value"]
    assert Path.cwd() == before
    with inside(None):
        assert os.listdir() == []
    assert Path.cwd() == before


def test_what_python_libraries_and_programs_print_is_kept_in_the_folder(tmp_path: Path) -> None:
    script = f"""
import os, subprocess, sys
from pathlib import Path
from psiflow_core.execution.scratch import printing_to
print("before")
with printing_to(Path({str(tmp_path)!r})):
    print("python", "\\udcff")
    print("errors", file=sys.stderr)
    os.write(1, b"a library\\n")
    subprocess.run(["echo", "a program"])
print("after")
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "before\nafter\n"
    assert said.stderr == ""
    kept = (tmp_path / OUTPUT).read_text().splitlines()
    assert kept == ["python \\udcff", "errors", "a library", "a program"]
    assert last_words(tmp_path, 2) == ["a library", "a program"]


def test_a_task_that_prints_nothing_leaves_no_file_and_a_long_output_is_cut_in_its_middle(tmp_path: Path) -> None:
    with printing_to(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / OUTPUT).write_bytes(b"first\n" + b"x" * (5 * KEPT) + b"\nlast\n")
    shorten(tmp_path / OUTPUT)
    kept = (tmp_path / OUTPUT).read_text()
    assert kept.startswith("first\n")
    assert kept.endswith("\nlast\n")
    assert "bytes left out" in kept
    assert len(kept) < 3 * KEPT


def test_a_plugin_that_forks_and_comes_back_twice_does_the_work_once(tmp_path: Path) -> None:
    """A copy of a worker would answer the same task again, and ask for others."""
    script = f"""
import os
from psiflow_core.execution.tasks.perform import perform
outcome = perform("label", {asked(tmp_path, "a fork", molecule("H2O")).to_plain()!r}, {{}})
os.write(1, f"came back: {{outcome['value']}}\\n".encode())
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "came back: {'cached': False, 'computed_by': None}\n"


def test_failures_show_what_a_task_printed_with_the_type_and_line_of_its_exception(
    workers: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = learning(labels=6, reference=psiflow.reference("faithless", how="prints"))
    with pytest.raises(CampaignError, match=r"raised RuntimeError: the engine has crashed \(.*faithless.py"):
        run(tmp_path / "c", workers, campaign)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["failures", str(tmp_path / "c")])
    said = capsys.readouterr().out
    assert "RuntimeError at " in said
    assert "faithless.py:" in said
    assert "): computing H" in said
    assert f"/{OUTPUT}): " in said


@pytest.mark.parametrize(
    ("kind", "options"),
    [("reference", {"how": "an exit"}), ("potential", {"trains": "an exit"}), ("sampler", {"how": "leaves"})],
)
def test_an_exit_in_a_task_is_a_failure_with_its_message(
    kind: str, options: dict[str, str], workers: Context, tmp_path: Path
) -> None:
    made = {"reference": psiflow.reference, "potential": psiflow.potential, "sampler": psiflow.sampler}[kind]
    campaign = learning(labels=6, **{kind: made("faithless", **options)})
    with pytest.raises(CampaignError, match=rf"{kind} 'faithless' .* raised SystemExit: sys.exit\('"):
        run(tmp_path / "c", workers, campaign)


def test_the_path_of_a_file_among_parameters_is_taken_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.dat").touch()
    given = {"files": ["weights.dat"], "method": "PM6", "nested": {"other": "missing.dat"}}
    spec = psiflow.reference("ase", calculator="lj", parameters=given)
    full = {"files": [str(tmp_path / "weights.dat")], "method": "PM6", "nested": {"other": "missing.dat"}}
    assert spec.options["parameters"] == full
    assert psiflow.AseCalculator(calculator="lj", parameters=given).parameters == full


def test_an_exit_in_a_plugins_import_is_a_broken_plugin_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit('no licence')\n")
    info = tmp_path / "leaving-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaving\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[psiflow]\nleaving = leaving\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = subprocess.run([sys.executable, "-m", "psiflow_core.cli", "plugins"], capture_output=True, text=True)
    said = " ".join((told.stdout + told.stderr).split())
    assert "leaving" in said
    assert "sys.exit('no licence')" in said
    assert "toy" in told.stdout
