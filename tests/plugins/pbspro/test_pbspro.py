"""Blocks as jobs of PBS: against a stand-in for its commands, which runs the scripts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from psiflow_pbspro.executor import PBSPro
from psiflow_toys.waiting import wait_until

import psiflow_core as psiflow
from psiflow_core.components import Pool
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block, BlockState, Scheduler, SchedulerUnavailable, SubmissionRefused, set_up
from psiflow_core.testing import SchedulerContract


def scheduler(**options: object) -> Scheduler:
    return PBSPro(**options).scheduler(Pool("pool", Path(), ("python",), 1))


def block(folder: Path, name: str = "psiflow-a1-0", command: str = "true") -> Block:
    folder = folder / "jobs of a pool"
    folder.mkdir(exist_ok=True)
    return Block(name, ("sh", "-c", command), folder)


def ended(queue: Scheduler, job: str) -> BlockState:
    wait_until(lambda: queue.states([job])[job].phase == "ended")
    return queue.states([job])[job]


class TestJobs(SchedulerContract):
    unknown = "4711.standin"

    @pytest.fixture(autouse=True)
    def _server(self, server: Path) -> None: ...

    def scheduler(self, setup: str = "") -> Scheduler:
        return scheduler(setup=setup)

    def held(self) -> Scheduler:
        return scheduler(queue="held")


def test_options_become_a_select_statement(server: Path, tmp_path: Path) -> None:
    options = {"nodes": 2, "nodes_per_task": 2, "cores": 8, "gpus": 1, "memory": 1.5, "walltime": "1-00:00:30"}
    queue = scheduler(
        **options, queue="workq", account="abc", chunk="cpu_type=rome", place="scatter:excl", directives="-W umask=022"
    )
    queue.submit(block(tmp_path))
    script = (tmp_path / "jobs of a pool" / "psiflow-a1-0.sh").read_text()
    head = [line.removeprefix("#PBS ") for line in script.splitlines() if line.startswith("#PBS ")]
    assert head == [
        "-N psiflow-a1-0",
        "-l select=2:ncpus=8:mpiprocs=8:ngpus=1:mem=1536mb:cpu_type=rome",
        "-l place=scatter:excl",
        "-r n",
        "-j oe",
        "-l walltime=24:00:30",
        "-q workq",
        "-A abc",
        "-W umask=022",
    ]


def test_a_block_of_several_nodes_starts_its_command_once_on_each(server: Path, tmp_path: Path) -> None:
    queue = scheduler(nodes=2, cores=4, setup="module load python")
    queue.submit(block(tmp_path))
    script = (tmp_path / "jobs of a pool" / "psiflow-a1-0.sh").read_text()
    assert "select=2:ncpus=4:mpiprocs=1" in script
    assert "exec pbsdsh -- /bin/bash -c" in script
    launched = shlex.split(script.partition("exec ")[2])[-1]
    assert launched == "\n".join([*set_up(("module load python",)), "exec sh -c true"])


def test_a_job_that_waits_says_why(server: Path, tmp_path: Path) -> None:
    queue = scheduler(queue="held")
    job = queue.submit(block(tmp_path))
    assert queue.states([job])[job] == BlockState("waiting", "Not Running: Insufficient amount of resource: ncpus")


def test_the_end_of_the_walltime_is_an_interruption(server: Path, tmp_path: Path) -> None:
    queue = scheduler(walltime=1)
    state = ended(queue, queue.submit(block(tmp_path, command="sleep 60")))
    assert state.interrupted
    assert state.words.startswith("walltime exceeded")
    assert state.code is None


def test_an_unknown_queue_is_refused_in_the_words_of_qsub(server: Path, tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefused, match="Unknown queue"):
        scheduler(queue="nowhere").submit(block(tmp_path))
    with pytest.raises(SubmissionRefused, match="Job violates queue and/or server resource limits"):
        scheduler(cores=9999).submit(block(tmp_path))


def test_a_full_queue_and_a_server_that_is_down_pass(server: Path, tmp_path: Path) -> None:
    with pytest.raises(SchedulerUnavailable, match="per-user limit"):
        scheduler(queue="full").submit(block(tmp_path))
    queue = scheduler(queue="held")
    job = queue.submit(block(tmp_path))
    (server / "down").touch()
    for request in (
        lambda: queue.submit(block(tmp_path)),
        lambda: queue.states([job]),
        lambda: queue.cancel([job]),
        lambda: queue.find("psiflow-"),
    ):
        with pytest.raises(SchedulerUnavailable, match="cannot connect to server"):
            request()
    (server / "down").unlink()
    assert queue.states([job])[job].phase == "waiting"


@pytest.mark.parametrize("history", [True, False])
def test_a_job_that_the_server_has_forgotten_has_ended(server: Path, tmp_path: Path, history: bool) -> None:
    if not history:
        (server / "no_history").touch()
    queue = scheduler(queue="held")
    job = queue.submit(block(tmp_path))
    states = queue.states([job, "4711.standin"])
    assert states[job].phase == "waiting"
    assert states["4711.standin"] == BlockState("ended", "PBS no longer knows the job")
    queue.cancel([job, "4711.standin"])
    assert ended(queue, job).interrupted is history


@pytest.mark.parametrize(
    "options", [{"queue": "a b"}, {"account": "a;reboot"}, {"chunk": "ncpus"}, {"place": "$(reboot)"}], ids=str
)
def test_options_that_are_not_one_word_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        psiflow.executor("pbspro", **options)
