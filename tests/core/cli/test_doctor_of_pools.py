"""`psiflow doctor --context`: a real job on each pool, and what is wrong there is named with its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from psiflow_core.cli import app
from psiflow_core.cli.machine import Finding
from psiflow_core.cli.sights import AS_ROOT, Sights, spans
from psiflow_core.components import Resources
from psiflow_core.execution.tasks.request import Grant
from psiflow_core.execution.tasks.survey import Scratch, Surveyed, SurveyRequest
from psiflow_core.processes.launchers import Ranks

CONTEXT = """
folder: {folder}
train: {{name: threads, workers: 2}}
sample: {{name: local, workers: 2}}
label: {{name: toy-blocks, workers: 1, before: exit 3}}
"""


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, which Open MPI refuses otherwise."""
    for variable in AS_ROOT:
        monkeypatch.setenv(variable, "1")


def seen(**changes: Any) -> Surveyed:
    """What a healthy worker sees, with changes."""
    here = SurveyRequest().run(Grant())
    sound = {"age": 2.0, "cores": [0, 1, 2, 3], "threads": 2, "scratch": Scratch(folder="/tmp", free=9.0, speed=500.0)}
    return here.model_copy(update={**sound, "began": 0.0, "ended": 9.0, **changes})


def ranks(cores: list[list[int]], worlds: tuple[int, ...] = (2, 2), words: str = "", by: str = "mpirun") -> list[Ranks]:
    hosts, command = ["n1"] * len(cores), f"{by} -n 2"
    rest = {"worlds": list(worlds), "cores": cores, "hosts": hosts, "words": words}
    return [Ranks(launcher=by, command=command, asked=2, **rest)]


def findings(*tasks: Surveyed, device: str = "cpu", late: float | None = 0.0, nodes: int = 1) -> dict[str, Finding]:
    sights = Sights("label", Resources(2, device), tasks, wait=5.0, late=late, nodes=nodes)
    return {one.check.removeprefix("label "): one for one in sights.findings()}


def test_a_healthy_pool_has_no_failing_line() -> None:
    free = [[0, 1, 2, 3], [0, 1, 2, 3]]
    found = findings(seen(ranks=ranks(free)), seen(ranks=ranks(free)))
    assert {one.verdict for one in found.values()} == {"good"}
    assert "after 3 s, and its first task 2.0 s later" in found["workers"].found


@pytest.mark.parametrize(
    ("check", "tasks", "words"),
    [
        ("cores", [{"cores": [0, 1]}, {"cores": [0, 1]}], "cores 0-1 together, and need 2 each"),
        ("cores", [{"cores": [1, 2, 3]}, {"cores": [1, 2, 3]}], "cores 1-3 together"),
        ("cores", [{"cores": [0]}], "its tasks get 2 threads"),
        ("environment", [{"versions": {"parsl": "2020.1.1"}}], "the driver has Python"),
        ("MPI by mpirun", [{"ranks": ranks([[0], [1]])}] * 2, "share the cores 0-1"),
        ("MPI by mpirun", [{"ranks": ranks([[0, 1]] * 2, worlds=(1, 1))}], "each is alone"),
        ("MPI by mpirun", [{"ranks": ranks([], (), "no slots")}], "0 of 2 ranks answered: no slots"),
        ("setup", [{"failed_setup": "module load cp2k"}], "this line has failed: module load cp2k"),
        ("scratch", [{"scratch": Scratch(folder="/tmp", free=0.1, speed=500.0)}], "0.1 GiB free"),
    ],
)
def test_what_is_wrong_is_a_failing_line_with_its_fix(check: str, tasks: list[dict[str, Any]], words: str) -> None:
    found = findings(*(seen(**task) for task in tasks))[check]
    assert found.verdict == "bad"
    assert words in found.found
    assert found.fix


def test_ranks_that_leave_the_cores_of_their_worker_clash() -> None:
    own = [seen(cores=[0, 1], ranks=ranks([[0], [1]])), seen(cores=[2, 3], ranks=ranks([[2], [3]]))]
    assert findings(*own)["MPI by mpirun"].verdict == "good"
    astray = [seen(cores=[0, 1], ranks=ranks([[0], [1]])), seen(cores=[2, 3], ranks=ranks([[0], [1]]))]
    assert findings(*astray)["MPI by mpirun"].verdict == "bad"


def test_a_launcher_that_fails_is_no_failing_line_where_another_works() -> None:
    both = [*ranks([[0, 1], [0, 1]]), *ranks([], (), "no PMI", by="srun")]
    found = findings(seen(ranks=both))
    assert found["MPI by mpirun"].verdict == "good"
    assert found["MPI by srun"].verdict == "open"
    assert found["MPI by srun"].fix


def test_cores_of_their_own_are_good_and_told() -> None:
    found = findings(seen(cores=[0, 1]), seen(cores=[2, 3]))["cores"]
    assert found.verdict == "good"
    assert "0-1, and 2-3" in found.found


def test_tasks_on_two_hosts_may_have_the_same_cores() -> None:
    assert findings(seen(cores=[0, 1]), seen(cores=[0, 1], host="other"))["cores"].verdict == "good"


def test_a_pool_for_gpus_needs_them_and_others_say_that_they_have_them() -> None:
    assert findings(seen(), device="cuda")["GPUs"].verdict == "bad"
    assert findings(seen(gpus=["H100"]), device="cuda")["GPUs"].verdict == "good"
    assert findings(seen(gpus=["H100"]))["GPUs"].verdict == "open"


def test_ranks_of_a_task_on_two_nodes_have_to_be_on_both() -> None:
    found = findings(seen(threads=8, ranks=ranks([[0, 1]] * 2)), nodes=2)
    assert found["cores"].verdict == "good", "half of them are on another node"
    assert found["MPI by mpirun"].verdict == "bad"
    assert "all on n1, not on 2 nodes" in found["MPI by mpirun"].found


def test_the_end_of_a_block_is_told_and_a_missing_one_is_a_line_with_its_fix() -> None:
    assert "the block ends in 0:20:00" in findings(seen(left=1200.0))["wall time"].found
    assert "wall time" not in findings(seen(left=None)), "a process of this machine has no end"
    without = {
        one.check: one for one in Sights("label", Resources(), [seen(left=None)], 5.0, 0.0, remote=True).findings()
    }
    assert without["label wall time"].verdict == "open"
    assert "walltime" in without["label wall time"].fix


def test_files_that_the_driver_does_not_see_are_a_failing_line() -> None:
    assert findings(seen(), late=None)["folder"].verdict == "bad"


def test_numbers_are_told_as_spans() -> None:
    assert spans([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


def test_each_pool_gets_a_job_and_one_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CONTEXT.format(folder=tmp_path / "work"))
    result = CliRunner().invoke(app, ["doctor", "--context", str(file), "--reference", "ase", "--sampler", "ase"])
    assert result.exit_code == 1
    assert "✔ train workers: tasks run in the driver's own process" in result.output
    assert "✔ sample workers: the block started after" in result.output
    assert "✔ sample folder: the driver sees a file of a worker" in result.output
    assert "✔ sampler ase: works on a worker" in result.output
    assert "✘ label workers: " in result.output
    assert "exit code 3" in result.output
    assert "reference ase" not in result.output, "its pool does not work"
    assert not list((tmp_path / "work").rglob("seen-*")), "nothing is left"


def test_one_executor_is_examined_with_its_options() -> None:
    result = CliRunner().invoke(app, ["doctor", "--executor", "threads", "--option", "workers=2", "--sampler", "ase"])
    assert result.exit_code == 0, result.output
    assert "✔ all cores: two tasks" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "thread"], "Did you mean 'threads'?"),
        (["--executor", "threads", "--option", "worker=2"], "Did you mean 'workers'?"),
        (["--executor", "threads", "--option", "workers"], "write key=value"),
        (["--option", "workers=2"], "also give --executor"),
        (["--executor", "threads", "--context", "c.yaml"], "give one of them"),
    ],
)
def test_wrong_requests_are_refused(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["doctor", *words])
    assert result.exit_code == 1
    assert message in str(result.exception)
