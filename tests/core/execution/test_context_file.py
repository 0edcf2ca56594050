"""A context as YAML: what it describes, and where it is wrong, by file, line, column and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from psiflow_core.errors import OptionError, PluginNotFound
from psiflow_core.execution.context import Context
from psiflow_core.execution.context_file import EXAMPLE, KEYS, USERS, Described, read_context
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.yaml_file import YamlFile


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cluster.yaml"


def described(file: Path, text: str) -> Described:
    file.write_text(text)
    return read_context(file)


def test_pools_are_shared_by_name(file: Path) -> None:
    found = described(file, "pools:\n  big: {name: local, workers: 4}\ntrain: big\nsample: big\nlabel: threads\n")
    assert found.executors["train"] is found.executors["sample"]
    assert found.executors["train"].options["workers"] == 4
    assert found.executors["label"].name == "threads"
    assert found.everything == "local"


def test_pools_are_shared_by_an_anchor(file: Path) -> None:
    found = described(file, "train: &one {name: local, workers: 4}\nsample: *one\nlabel: {name: local, workers: 4}\n")
    assert found.executors["train"] is found.executors["sample"]
    assert found.executors["train"] is not found.executors["label"]


def test_an_executor_may_change_options_of_another(file: Path) -> None:
    found = described(file, "train: &one {name: local, workers: 4}\nlabel: {<<: *one, workers: 2}\n")
    assert found.executors["train"].options["workers"] == 4
    assert found.executors["label"].options["workers"] == 2


def test_folders_start_from_the_file(file: Path, tmp_path: Path) -> None:
    found = described(file, "folder: work\nlabels: ~/labels\n")
    assert found.places == {"folder": tmp_path / "work", "labels": Path.home() / "labels"}


def test_variables_in_paths_are_replaced(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert described(file, "folder: $SCRATCH/work").places == {"folder": tmp_path / "scratch" / "work"}
    assert described(file, "folder: ${SCRATCH}").places == {"folder": tmp_path / "scratch"}


def test_a_context_of_a_file_runs_tasks(file: Path, tmp_path: Path) -> None:
    file.write_text("everything: {name: local, workers: 1}\nfolder: work\n")
    with Context.from_yaml(file) as context:
        assert context.run(IdleRequest(), timeout=120).failure is None
    assert (tmp_path / "work" / "pools").is_dir()


def test_the_folder_of_a_script_replaces_that_of_the_file(file: Path, tmp_path: Path) -> None:
    file.write_text("everything: threads\nfolder: work\n")
    with Context.from_yaml(file, folder=tmp_path / "other") as context:
        context.run(IdleRequest(), timeout=120)
    assert not (tmp_path / "work").exists()


def test_a_time_is_no_number_to_the_base_of_sixty(file: Path) -> None:
    with pytest.raises(OptionError, match="workers='12:30:00'"):
        described(file, "label:\n  name: local\n  workers: 12:30:00\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lable: local", "1:1: unknown key 'lable'. Did you mean 'label'? Keys: pools, everything, train, sample"),
        ("label:\n  name: local\n  wrkers: 2", "3:3: label: unknown option 'wrkers'. Did you mean 'workers'?"),
        ("label: {name: local, workers: many}", "1:22: label: workers='many': Input should be a valid integer"),
        ("label: {name: local, workers: 0}", "1:22: label: workers=0: Input should be greater than 0"),
        ("label: {workers: 2}", "1:1: label: write a name, or {name: …} with options"),
        ("label: [local]", "1:1: label: write a name, or {name: …} with options"),
        ("pools: {big: local}\nlabel: bgi", "2:1: no pool 'bgi'. Did you mean 'big'? Pools: big"),
        ("pools: [local]", "1:1: write pools as {name: executor}"),
        ("pools: {local: threads}", "1:9: 'local' is the name of an executor"),
        ("label: local\nlabel: threads", "2:1: key 'label' is there already, in line 1"),
        ("label: {name: local\nsample: threads", "2:7: this is not YAML: "),
        ("folder: 3", "1:1: folder: write a path, not 3"),
        ("folder: $NO_SUCH/a", "1:1: folder: $NO_SUCH/a: the variable $NO_SUCH is not set"),
        ("labels: ~no-such-user/a", "1:1: labels: ~no-such-user/a: there is no such user"),
    ],
)
def test_a_mistake_is_told_with_its_place(file: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError) as error:
        described(file, text)
    assert str(error.value).startswith(f"{file}:")
    assert message in str(error.value)


def test_a_text_that_looks_like_a_number_is_to_be_quoted(file: Path) -> None:
    with pytest.raises(OptionError, match="put a text that looks like another value in quotes: '0123'"):
        described(file, "label: {name: toy-blocks, before: 0123}")


def test_an_unknown_executor_is_told_with_its_place(file: Path) -> None:
    with pytest.raises(PluginNotFound) as error:
        described(file, "label:\n  name: locl\n")
    assert str(error.value).startswith(f"{file}:2:3: label: no executor 'locl'. Did you mean 'local'?")


def test_every_problem_of_an_executor_is_told(file: Path) -> None:
    with pytest.raises(OptionError) as error:
        described(file, "label:\n  name: local\n  workers: 0\n  device: gpu\n")
    assert [line.rpartition("cluster.yaml:")[2][:4] for line in str(error.value).splitlines()] == ["3:3:", "4:3:"]


EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "contexts").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_is_a_context(example: Path) -> None:
    """Executors whose plugin is not installed here are left out."""
    document = YamlFile(example, EXAMPLE)
    document.only(KEYS)
    found, missing = 0, []
    pools = [("pools", name) for name in document.content.get("pools", {})]
    for path in [*pools, *((user,) for user in USERS if isinstance(document.content.get(user), dict))]:
        try:
            document.spec("executor", *path)
            found += 1
        except PluginNotFound as error:
            missing.append(str(error))
    if missing and not found:
        pytest.skip("; ".join(missing))
    assert missing or read_context(example).executors


def test_there_is_an_example_for_each_kind_of_place() -> None:
    assert {file.stem for file in EXAMPLES} == {"laptop", "workstation-two-gpus", "slurm", "slurm-and-cloud"}
