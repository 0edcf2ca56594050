"""Environments other than the driver's own: made, adopted, described, compared, removed. They are real ones."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml
from ase.build import molecule
from psiflow_toys.waiting import PATIENCE, survivors, wait_until
from rich.console import Console

import psiflow_core
from psiflow_core.cli import diagnosis, main
from psiflow_core.cli.request import read_request
from psiflow_core.environments import environment, install, requirements
from psiflow_core.environments.description import ask, versions
from psiflow_core.environments.environment import Environment, launch_words
from psiflow_core.environments.process import Server
from psiflow_core.errors import EngineMissing, EnvironmentUnfit, OptionError, PluginNotFound, PsiflowError
from psiflow_core.execution.blocks._said import said
from psiflow_core.processes import guard
from psiflow_core.registry.plugins import registry

ROOT = Path(__file__).parents[3]
TOYS_ELSEWHERE = ROOT / "tests" / "toys_elsewhere"
UV = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


class Said(NamedTuple):
    code: int
    out: str
    err: str


Psiflow = Callable[..., Said]


@pytest.fixture
def psiflow(capsys: pytest.CaptureFixture[str]) -> Psiflow:
    """The command, in this process."""

    def command(*arguments: object) -> Said:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(int(end.value.code or 0), captured.out, captured.err)

    return command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of environments, with a space in its path."""
    place = tmp_path / "my environments"
    monkeypatch.setenv(environment.FOLDER, str(place))
    return place


@pytest.fixture
def python(elsewhere: Path) -> str:
    """The Python that has the toy `distant`."""
    return str(elsewhere / "distant" / "venv" / "bin" / "python")


@pytest.fixture(autouse=True)
def _nothing_stays_adopted() -> Iterator[None]:
    yield
    environment._adopted.clear()


def script(file: Path, text: str) -> str:
    """A program that stands for a container's command."""
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


# An environment that psiflow made --------------------------------------------------------------------------


def test_what_is_in_it_cannot_be_imported_here_and_the_other_way_round(elsewhere: Path, python: str) -> None:
    missing = [subprocess.run([sys.executable, "-c", "import psiflow_toys_elsewhere"], capture_output=True).returncode]
    missing += [subprocess.run([python, "-P", "-c", "import psiflow_toys"], capture_output=True).returncode]
    assert missing == [1, 1]


def test_it_is_recorded_with_versions_options_and_engines(elsewhere: Path) -> None:
    found = environment.known("distant")
    assert {name: found.description[name] for name in versions()} == versions()
    (distant,) = (one for one in found.description["components"] if one["component"]["name"] == "distant")
    assert (distant["distribution"], distant["version"]) == ("psiflow-toys-elsewhere", "0.1.0")
    assert (distant["engine"], distant["engine_version"]) == ("psiflow_toys_elsewhere.engine", "1.2.3")
    assert found.packages == ("-e", str(TOYS_ELSEWHERE))
    assert found.own


def test_its_options_are_checked_as_if_it_were_here(elsewhere: Path) -> None:
    spec = psiflow_core.potential("distant", cutoff=3)
    assert (spec.options["cutoff"], spec.options["powers"], spec.distribution) == (
        3.0,
        [3, 4, 6],
        "psiflow-toys-elsewhere",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cutof": 3}, "potential 'distant': unknown option 'cutof'. Did you mean 'cutoff'?"),
        ({"cutoff": -1}, "potential 'distant': cutoff=-1: Input should be greater than 0"),
        ({"powers": [1]}, "potential 'distant': powers.0=1: Input should be greater than or equal to 2"),
        ({"fit": "all"}, "Input should be 'forces' or 'energies and forces'"),
        ({"scales": {"energy": "much"}}, "scales.energy='much'"),
    ],
)
def test_a_wrong_option_is_told_in_the_words_of_the_component_itself(
    python: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError) as here:
        psiflow_core.potential("distant", **options)
    code = (
        "import json, sys; from psiflow_toys_elsewhere.potential import Distant\n"
        "try: Distant.parse(json.loads(sys.argv[1]))\nexcept Exception as error: print(error)"
    )
    there = subprocess.run([python, "-P", "-c", code, json.dumps(options)], capture_output=True, text=True, check=True)
    assert str(here.value) == there.stdout.strip()
    assert said in str(here.value)


def test_plugins_shows_where_a_component_lives(elsewhere: Path, psiflow: Psiflow) -> None:
    rows = [line.split() for line in psiflow("plugins").out.splitlines()]
    assert ["potential", "distant", "psiflow-toys-elsewhere", "0.1.0", "distant"] in [row[:5] for row in rows]
    (toy,) = (row for row in rows if row[:2] == ["potential", "toy"])
    assert toy[4] == "Each", "what is here has no environment beside its name"
    assert len([row for row in rows if row[:2] == ["sampler", "ase"]]) == 1, "psiflow's own are in every environment"
    sheet = psiflow("plugins", "distant").out
    assert "in environment distant" in sheet
    assert "How strongly weights are held to zero." in sheet


def test_without_environments_plugins_has_no_column_for_them(folder: Path, psiflow: Psiflow) -> None:
    assert "environment" not in psiflow("plugins").out.splitlines()[1]


def test_a_misspelt_name_suggests_what_is_in_an_environment(elsewhere: Path) -> None:
    with pytest.raises(PluginNotFound, match="Did you mean 'distant'"):
        psiflow_core.potential("distand")


def test_executors_of_environments_are_not_the_drivers(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry(), "_found", {})
    with pytest.raises(PluginNotFound):
        psiflow_core.executor("local")
    assert psiflow_core.sampler("ase", ensemble="nve").name == "ase"


def test_list_tells_python_place_and_components(elsewhere: Path, psiflow: Psiflow) -> None:
    row = next(line for line in psiflow("env", "list").out.splitlines() if "distant" in line)
    assert ("3." in row, "potential distant" in row, "made by psiflow" in row) == (True, True, True)


def test_check_is_one_line_for_a_good_one(elsewhere: Path, psiflow: Psiflow) -> None:
    said = psiflow("env", "check")
    assert said.code == 0
    assert said.out == (
        "✔ environment distant: starts and agrees; potential distant (psiflow_toys_elsewhere.engine 1.2.3)\n"
    )


def test_update_installs_again_what_was_asked_for_and_records_it(elsewhere: Path, psiflow: Psiflow) -> None:
    before = environment.known("distant")
    environment.keep(replace(before, description={**before.description, "components": []}))
    said = psiflow("env", "update", "distant")
    assert said.code == 0, said
    assert environment.known("distant").description == before.description
    ran = [line for line in (elsewhere / "distant" / "install.log").read_text().splitlines() if line.startswith("$ ")]
    assert "--upgrade" in ran[-1]
    assert ran[-1].endswith(f"-e {ROOT} -e {TOYS_ELSEWHERE}")


def test_a_name_is_taken_once(elsewhere: Path, psiflow: Psiflow, python: str) -> None:
    for words in (("create", "distant"), ("adopt", "distant", python)):
        said = psiflow("env", *words)
        assert said.code == 1
        assert "psiflow env update distant" in said.err
        assert "psiflow env remove distant" in said.err


@pytest.mark.skipif(UV is None, reason="uv is not installed")
def test_uv_makes_one_in_a_path_with_spaces_which_is_updated_and_removed(
    folder: Path, psiflow: Psiflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TOYS_ELSEWHERE, tmp_path / "toys")
    monkeypatch.chdir(tmp_path)
    made = psiflow("env", "create", "with.uv", "./toys", "--installer", "uv")
    assert made.code == 0, made
    assert "Environment 'with.uv' is ready" in made.out
    assert environment.known("with.uv").packages == (str(tmp_path / "toys"),)
    failed = psiflow("env", "update", "with.uv", "no-such-package-of-psiflow")
    assert (failed.code, str(folder / "with.uv" / "install.log") in failed.err) == (1, True)
    assert psiflow("env", "check", "with.uv").code == 0
    engine = tmp_path / "toys" / "src" / "psiflow_toys_elsewhere" / "engine.py"
    engine.write_text(engine.read_text().replace("1.2.3", "1.2.5"))
    assert "engine 1.2.5" in psiflow("env", "update", "with.uv").out, "the folder is built again"
    assert psiflow("env", "remove", "with.uv").out == "with.uv is removed.\n"
    assert list(folder.iterdir()) == []


# What can go wrong while one is made -----------------------------------------------------------------------


@pytest.mark.parametrize("installer", ["pip", pytest.param("uv", marks=pytest.mark.skipif(UV is None, reason="no uv"))])
def test_a_package_that_does_not_exist_is_named_and_nothing_is_left(
    folder: Path, psiflow: Psiflow, installer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "origin", lambda name: ())
    said = psiflow("env", "create", "bad", "no-such-package-of-psiflow", "--installer", installer)
    assert said.code == 1
    first, *rest = said.err.splitlines()
    assert first.startswith("error: environment 'bad' could not be installed: ")
    assert "no-such-package-of-psiflow" in first
    assert any(line.startswith("  ") for line in rest), "the end of the installer's output"
    assert list(folder.iterdir()) == []


def making(folder: Path, name: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A command that makes an environment, once its installer is at work; and all that it has started."""
    words = [sys.executable, "-m", "psiflow_core.cli", "env", "create", name, "--installer", "pip"]
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts with & ignores it
    made = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding)
    children: list[psutil.Process] = []

    def installing_now() -> bool:
        children[:] = psutil.Process(made.pid).children(recursive=True)
        return any("pip" in words_of(child) for child in children)

    wait_until(installing_now, made)
    return made, children


def words_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_creation_leaves_no_folder_and_no_process(number: signal.Signals, folder: Path) -> None:
    made, children = making(folder, "cut")
    made.send_signal(number)
    out, _ = made.communicate(timeout=PATIENCE)
    assert made.returncode == 130
    assert "The unfinished environment was deleted" in out
    assert list(folder.iterdir()) == []
    assert not survivors(children)


def test_an_installer_does_not_outlive_the_command_and_an_environment_under_work_is_left_alone(
    folder: Path, psiflow: Psiflow
) -> None:
    made, children = making(folder, "cut")
    for word in ("create", "remove"):
        said = psiflow("env", word, "cut")
        assert (said.code, f"process {made.pid} on" in said.err) == (1, True), said.err
    made.kill()
    made.communicate()
    assert not survivors(children)
    said = psiflow("env", "create", "cut")
    assert (said.code, "its creation was interrupted. Delete it: psiflow env remove cut" in said.err) == (1, True)
    assert psiflow("env", "remove", "cut").code == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_asked_environment_ends_with_the_command_that_asks(
    number: signal.Signals, folder: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/pid\nwait\n")
    slow.chmod(0o755)
    words = [sys.executable, "-m", "psiflow_core.cli", "env", "adopt", "slow", str(slow)]
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    asking = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, preexec_fn=heeding)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), asking)
    sleeping = psutil.Process(int((tmp_path / "pid").read_text()))
    asking.send_signal(number)
    assert "Nothing was recorded" in asking.communicate(timeout=PATIENCE)[0]
    assert asking.returncode == 130
    assert not survivors([sleeping])
    assert not folder.exists()


def test_a_creation_that_was_killed_is_told_and_cleared_away(folder: Path, psiflow: Psiflow) -> None:
    (folder / "half" / "venv").mkdir(parents=True)
    (folder / "half" / "install.log").touch()
    said = psiflow("env", "create", "half")
    assert (said.code, "psiflow env remove half" in said.err) == (1, True)
    assert "There are no environments" in psiflow("env", "list").out
    assert psiflow("env", "remove", "half").code == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "two words", "../up", ".hidden", "a/b", "ä", "x;y", "-"])
def test_a_name_that_cannot_be_a_folder_is_refused(folder: Path, psiflow: Psiflow, name: str) -> None:
    for words in (("create", "--", name), ("adopt", "--", name, sys.executable), ("remove", "--", name)):
        said = psiflow("env", *words)
        assert said.code == 1
        assert "cannot be named" in said.err
    assert not folder.exists()


def test_an_unknown_name_is_told_with_the_nearest(elsewhere: Path, psiflow: Psiflow) -> None:
    for word in ("check", "update", "remove"):
        said = psiflow("env", word, "distand")
        assert (said.code, "Did you mean 'distant'?" in said.err) == (1, True)


def test_an_installer_that_is_not_there_is_told(
    folder: Path, psiflow: Psiflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_uv", lambda: "")
    assert "uv is not installed" in psiflow("env", "create", "x", "--installer", "uv").err
    assert "uv or pip" in psiflow("env", "create", "x", "--installer", "conda").err
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, psiflow: Psiflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(environment.FOLDER, str(tmp_path / "file" / "environments"))
    said = psiflow("env", "create", "x")
    assert (said.code, "PSIFLOW_ENVIRONMENTS" in said.err) == (1, True)


# What is installed -----------------------------------------------------------------------------------------


def test_paths_count_from_the_root_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plug in").mkdir()
    (tmp_path / "mace").mkdir()
    (tmp_path / "versions.txt").touch()
    found = requirements.words(["mace", "./plug in[gpu]", "psiflow-mace[gpu]>=0.1"], ["plug in"], ["versions.txt"])
    assert found == (
        "mace",
        f"{tmp_path}/plug in[gpu]",
        "psiflow-mace[gpu]>=0.1",
        "-e",
        f"{tmp_path}/plug in",
        "-c",
        f"{tmp_path}/versions.txt",
    )
    with pytest.raises(OptionError, match=r"\./nowhere does not exist"):
        requirements.words([], ["./nowhere"])


def test_a_package_that_is_named_again_is_taken_as_it_was_named_last() -> None:
    before = ("psiflow-mace==0.1", "-c", "/a.txt", "-e", "/psiflow_toys")
    more = ("Psiflow_MACE[gpu] >= 0.2", "-e", "/psiflow_toys", "psiflow-pyscf")
    assert requirements.joined(before, more) == (
        "Psiflow_MACE[gpu] >= 0.2",
        "-c",
        "/a.txt",
        "-e",
        "/psiflow_toys",
        "psiflow-pyscf",
    )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"url": f"file://{ROOT}", "dir_info": {"editable": True}}, ("-e", str(ROOT))),
        ({"url": f"file://{ROOT}", "dir_info": {}}, (str(ROOT),)),
        (
            {"url": "https://x.org/p.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "core"},
            ("psiflow-core @ git+https://x.org/p.git@abc#subdirectory=core",),
        ),
        (
            {"url": "https://x.org/psiflow_core-0.1.0-py3-none-any.whl", "archive_info": {}},
            ("psiflow-core @ https://x.org/psiflow_core-0.1.0-py3-none-any.whl",),
        ),
    ],
)
def test_psiflow_comes_from_where_the_drivers_own_came(told: dict[str, Any], words: tuple[str, ...]) -> None:
    assert requirements._from_url("psiflow-core", told) == words


def test_what_came_from_an_index_is_asked_for_by_its_version() -> None:
    assert requirements.origin("pluggy")[0].startswith("pluggy==")
    told = "from psiflow_core.environments import requirements; print(*requirements.origin('psiflow-core'))"
    here = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert here.stdout.split() == ["-e", str(ROOT)], "also where the source tree is the working directory"


def test_a_source_that_is_gone_is_told() -> None:
    with pytest.raises(OptionError, match="installed from /no/where, which no longer exists"):
        requirements._from_url("psiflow-core", {"url": "file:///no/where", "dir_info": {}})


def test_uv_and_pip_are_asked_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_uv", lambda: "/bin/uv")
    monkeypatch.setattr(install, "origin", lambda name: (f"{name}==1",))
    python, wanted = Path("/e/bin/python"), ("psiflow-mace", "-c", "/c.txt")
    what = ["parsl==1", "psiflow-core==1", *wanted]
    assert install._install_words("uv", python, wanted) == [
        "/bin/uv",
        "pip",
        "install",
        "--python",
        str(python),
        *what,
    ]
    assert install._install_words("pip", python, wanted)[:4] == [str(python), "-m", "pip", "install"]
    assert install._install_words("pip", python, wanted)[-len(what) :] == what
    assert install._venv_words("uv", Path("/e")) == ["/bin/uv", "venv", "--python", sys.executable, "/e"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Collecting x\nERROR: Could not find\nERROR: No matching distribution found for x\n\n", "No matching distri"),
        (
            "  × No solution found:\n  ╰─▶ Because x was not\n      found\n",
            "No solution found: Because x was not found",
        ),
        ("error: No solution found\n  cause: Because x is missing\n", "No solution found cause: Because x is missing"),
        ("The virtual environment was not created\nensurepip is not available\n", "ensurepip is not available"),
        ("", ""),
    ],
)
def test_the_reason_is_the_installers_last_error(said: str, reason: str) -> None:
    assert install.reason(said).startswith(reason)


# Adopting --------------------------------------------------------------------------------------------------


def test_an_environment_is_adopted_by_folder_interpreter_or_words(folder: Path, python: str) -> None:
    venv = Path(python).parents[1]
    for where in (venv, str(venv), python, f"env A=1 {python}", ["env", "A=1", python]):
        adopted = psiflow_core.adopt("theirs", where)
        assert adopted.find("potential", "distant") is not None
        assert adopted.launch[-1] == python
    assert not folder.exists(), "it is for this process"


def test_an_adopted_one_is_recorded_updated_and_forgotten_and_stays_itself(
    folder: Path, psiflow: Psiflow, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.FOLDER, str(folder))  # `python` has set that of the toy
    adopted = psiflow("env", "adopt", "theirs", "env", "-u", "NOTHING", python)
    assert adopted.code == 0, adopted
    assert environment.known("theirs").launch == ("env", "-u", "NOTHING", python)
    assert "adopted" in psiflow("env", "list").out
    assert psiflow_core.potential("distant").name == "distant"
    refused = psiflow("env", "update", "theirs", "numpy")
    assert (refused.code, f"{python} -m pip install numpy" in refused.err) == (1, True)
    assert psiflow("env", "update", "theirs").code == 0
    assert psiflow("env", "adopt", "theirs", python).code == 0, "adopted again, elsewhere"
    assert psiflow("env", "remove", "theirs").code == 0
    assert list(folder.iterdir()) == []
    assert Path(python).exists()


def test_what_is_no_environment_is_told(tmp_path: Path, psiflow: Psiflow, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no program")
    (tmp_path / "noise").write_bytes(b"\x7f\x00")
    (tmp_path / "noise").chmod(0o755)
    old = script(tmp_path / "old", "echo 'Unknown option: -P' >&2; echo usage: python3.10 >&2; exit 2")
    wrong = {
        str(tmp_path / "empty"): "bin/python is missing",
        str(tmp_path / "text"): "cannot be run: Permission denied",
        str(tmp_path / "noise"): "cannot be run: Exec format error",
        str(tmp_path / "nowhere"): "is neither a folder nor a command",
        "no-such-command-x python": "'no-such-command-x' is neither a folder nor a command",
        "echo": "It must start a Python",
        "false": "it printed: nothing",
        " ": "no environment was given",
        old: "older than Python 3.11",
    }
    for where, why in wrong.items():
        said = psiflow("env", "adopt", "x", where)
        assert said.code == 1, where
        assert why in said.err, where
        assert len(said.err.splitlines()) == 1
    assert not folder.exists()


def test_one_without_psiflow_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.chdir(ROOT)  # where a folder psiflow_core lies, which is not installed there
    with pytest.raises(EnvironmentUnfit, match=r"has no psiflow\. .*bare/bin/python -m pip install psiflow-core=="):
        psiflow_core.adopt("bare", tmp_path / "bare")


def test_what_is_printed_around_the_answer_does_no_harm(tmp_path: Path, python: str) -> None:
    loud = script(tmp_path / "loud", f'echo "[1, 2]"; {shlex.quote(python)} "$@"; echo "goodbye"')
    assert psiflow_core.adopt("loud", loud).find("potential", "distant") is not None


def test_environments_of_a_yaml_file_are_adopted_before_components_are_looked_up(
    folder: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, psiflow: Psiflow
) -> None:
    monkeypatch.setenv(environment.FOLDER, str(folder))
    (tmp_path / "theirs").symlink_to(Path(python).parents[1])
    molecule("H2O").write(tmp_path / "water.xyz")
    given: dict[str, Any] = {
        "environments": {"a": "theirs", "b": f"env A=1 {python}", "c": ["env", "A=1", python]},
        "potential": {"name": "distant", "cutoff": 3.0},
        "sampler": {"name": "ase", "ensemble": "nve"},
        "reference": "toy",
        "budget": {"labels": 12},
        "start": "water.xyz",
        "folder": "campaign",
    }
    file = tmp_path / "campaign.yaml"
    file.write_text(yaml.safe_dump(given))
    assert read_request(file).learning.potential.options["cutoff"] == 3.0
    assert [one.name for one in environment.environments()] == ["a", "b", "c"]
    assert environment.known("a").launch == (str(tmp_path / "theirs" / "bin" / "python"),)
    for wrong, why in (
        ("x", "environments: write"),
        ({"a": 3}, "environments.a: write"),
        ({"a": []}, "environments.a"),
    ):
        file.write_text(yaml.safe_dump({**given, "environments": wrong}))
        said = psiflow("run", file)
        assert (said.code, why in said.err) == (1, True)


def test_a_campaign_runs_with_a_potential_that_cannot_be_imported_here(
    elsewhere: Path, psiflow: Psiflow, tmp_path: Path
) -> None:
    molecule("H2O").write(tmp_path / "water.xyz")
    given: dict[str, Any] = {
        "potential": {"name": "distant", "cutoff": 3.0},
        "sampler": {"name": "ase", "ensemble": "nve", "temperature": 100.0},
        "reference": "toy",
        "walkers": 1,
        "committee": 2,
        "budget": {"labels": 8},
        "bootstrap": {"structures": 8},
        "walking": {"segment": {"steps": 20}},
        "start": "water.xyz",
        "folder": "campaign",
    }
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(given))
    said = psiflow("run", tmp_path / "campaign.yaml", "--quiet")
    assert said.code == 0, said
    assert "8 labels (0 failed)" in said.out


def test_what_lies_in_the_working_directory_is_not_what_is_installed(
    tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "psiflow_core").mkdir()
    (tmp_path / "psiflow_core" / "__init__.py").write_text("raise ImportError('this one is not meant')")
    monkeypatch.chdir(tmp_path)
    assert ask((python,))["psiflow-core"] == versions()["psiflow-core"]
    server = Server((python,))
    with pytest.raises(PsiflowError) as error:
        server.ask({"do": "nothing that is known"})
    server.end()
    assert not isinstance(error.value, EngineMissing), "it has answered"


# Disagreement ----------------------------------------------------------------------------------------------


def bad_findings(name: str) -> str:
    """What `psiflow doctor` and `psiflow env check` say of an environment that has something wrong."""
    findings = list(diagnosis.environment(name))
    assert {finding.verdict for finding in findings} == {"bad"}
    assert all(finding.fix for finding in findings)
    console = Console(width=1000)
    with console.capture() as shown:
        for finding in findings:
            console.print(finding.line())
    return shown.get()


def adopted(name: str, launch: str, **changes: Any) -> Environment:
    """An adopted environment, its record changed."""
    found = psiflow_core.adopt(name, launch)
    environment._adopted[name] = replace(found, description={**found.description, **changes})
    return environment._adopted[name]


@pytest.mark.parametrize("what", ["parsl", "psiflow-core", "python"])
def test_another_version_than_the_drivers_is_told_with_its_fix(tmp_path: Path, python: str, what: str) -> None:
    answer = f"""{shlex.quote(python)} "$@" | sed 's/"{what}": "[^"]*"/"{what}": "0.0"/'"""
    adopted("old", script(tmp_path / "old", answer))
    said = bad_findings("old")
    assert f"has {what} 0.0, but the driver has {versions()[what]}" in said
    assert f"pip install psiflow-core=={versions()['psiflow-core']} parsl=={versions()['parsl']}" in said


def test_an_own_one_is_brought_up_to_date_or_made_anew(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = environment.known("distant").description
    for what, fix in (("parsl", "psiflow env update distant"), ("python", "psiflow env create distant -e ")):
        monkeypatch.setattr(environment, "ask", lambda launch, engines, what=what: {**now, what: "0.0"})
        assert fix in bad_findings("distant")


def test_another_plugin_version_and_other_options_than_recorded_are_told(python: str) -> None:
    there = psiflow_core.adopt("x", python).description["components"]
    (distant,) = (one for one in there if one["component"]["name"] == "distant")
    others = [one for one in there if one is not distant]
    adopted("x", python, components=[*others, {**distant, "version": "9.9"}])
    assert "psiflow-toys-elsewhere was 9.9 and is now 0.1.0" in bad_findings("x")
    adopted("x", python, components=[*others, {**distant, "component": {**distant["component"], "doc": "Other."}}])
    assert "the options of potential distant have changed" in bad_findings("x")
    adopted("x", python, components=others)
    assert "potential distant is new" in bad_findings("x")
    adopted("x", python, components=[*there, {**distant, "component": {**distant["component"], "name": "lost"}}])
    assert "potential lost is gone" in bad_findings("x")


def test_another_engine_than_recorded_is_told_when_engines_are_imported(
    python: str, psiflow: Psiflow, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.FOLDER, str(folder))
    assert psiflow("env", "adopt", "x", python).code == 0
    monkeypatch.setenv("PSIFLOW_TOY_ENGINE", "1.2.4")
    environment.known("x").agree()
    said = psiflow("env", "check")
    assert (said.code, "the engine of potential distant was 1.2.3 and is now 1.2.4" in said.out) == (1, True)
    assert psiflow("env", "update", "x").code == 0
    assert psiflow("env", "check").code == 0


def test_a_broken_plugin_and_a_missing_engine_make_the_exit_code_one(
    folder: Path, python: str, psiflow: Psiflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.FOLDER, str(folder))
    engine = psiflow("env", "adopt", "engine", "env", "PSIFLOW_TOY_BROKEN=engine", python)
    assert engine.code == 1
    assert "psiflow_toys_elsewhere.engine, cannot be imported: ImportError: the toy's engine" in engine.out
    plugin = psiflow("env", "adopt", "plugin", "env", "PSIFLOW_TOY_BROKEN=plugin", python)
    assert plugin.code == 1
    assert "plugin elsewhere is broken: psiflow_toys_elsewhere: ImportError: the toy is broken" in plugin.out
    assert psiflow("env", "check").code == 1
    assert "cannot be imported" in bad_findings("engine")
    assert "elsewhere is broken" in bad_findings("plugin")
    assert "elsewhere in environment plugin: psiflow_toys_elsewhere" in psiflow("plugins").out


def test_an_own_one_whose_python_is_gone_is_made_anew(folder: Path, psiflow: Psiflow) -> None:
    described = {**versions(), "components": [], "broken": {}}
    environment.keep(Environment("gone", (str(folder / "gone/venv/bin/python"),), described, ("psiflow-x",), own=True))
    assert "psiflow env remove gone; psiflow env create gone psiflow-x" in bad_findings("gone")
    assert "psiflow env create gone psiflow-x" in psiflow("env", "update", "gone").err


def test_an_adopted_one_that_starts_on_other_machines_only_is_known_by_its_stored_description(
    folder: Path, psiflow: Psiflow
) -> None:
    described = {**versions(), "components": [], "broken": {}}
    environment.keep(Environment("cluster", ("no-such-container-command", "python"), described))
    environment.known("cluster").agree()
    said = psiflow("env", "check")
    assert (said.code, "not on this machine" in said.out) == (0, True)


def test_a_damaged_description_is_reported_and_does_not_affect_other_environments(
    folder: Path, psiflow: Psiflow, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.FOLDER, str(folder))
    assert psiflow("env", "adopt", "good", python).code == 0
    (folder / "bad").mkdir()
    (folder / "bad" / environment.DESCRIPTION).write_text('{"name": "bad"')
    listed = psiflow("env", "list")
    assert listed.code == 0
    assert "the description of environment 'bad' cannot be read" in " ".join(listed.out.split())
    checked = psiflow("env", "check")
    assert (checked.code, "✔ environment good" in checked.out, "psiflow env remove bad" in checked.out) == (
        1,
        True,
        True,
    )
    assert psiflow("env", "remove", "bad").code == 0
    assert psiflow("env", "check").code == 0


def test_removing_keeps_what_psiflow_has_not_put_there(folder: Path, psiflow: Psiflow) -> None:
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "work.txt").touch()
    said = psiflow("env", "remove", "mine")
    assert (said.code, "cannot be deleted" in said.err) == (1, True)
    assert (folder / "mine" / "work.txt").exists()


def test_doctor_looks_at_the_environments_of_what_is_wanted(elsewhere: Path, tmp_path: Path) -> None:
    wanted = [finding.check for finding in diagnosis.environments({"potential": "distant"})]
    assert wanted == ["environment distant"]
    assert list(diagnosis.environments({"potential": "toy"})) == []
    assert [finding.verdict for finding in diagnosis.environments({})] == ["good"]
    assert diagnosis.chosen_components({"potential": "distant"}) == ([], [])


def test_the_folder_of_environments_is_where_the_user_keeps_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.FOLDER, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert environment.root() == Path("/data/psiflow/environments")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert environment.root() == Path("/home/me/.local/share/psiflow/environments")


def test_words_that_start_a_python_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch_words("apptainer exec 'my image.sif' python") == ("apptainer", "exec", "my image.sif", "python")
    (tmp_path / "my venv" / "bin").mkdir(parents=True)
    (tmp_path / "my venv" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert launch_words("my venv") == (f"{tmp_path}/my venv/bin/python",)
    assert launch_words([os.fspath("my venv/bin/python")]) == (f"{tmp_path}/my venv/bin/python",)


def test_what_the_driver_sets_for_its_own_python_does_not_reach_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/the/drivers/packages")
    show = [sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))"]
    for name, isolated in {"own": False, "other": True}.items():
        subprocess.run([*guard.command(os.getpid(), tmp_path, name, isolated=isolated), *show], check=True)
    assert said(tmp_path, "own").strip() == "/the/drivers/packages"
    assert said(tmp_path, "other").strip() == "None"
