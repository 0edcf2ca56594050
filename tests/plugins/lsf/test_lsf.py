"""Blocks as jobs of LSF: against a stand-in for its commands, which runs the scripts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from psiflow_lsf.executor import LSF
from psiflow_toys.waiting import wait_until

import psiflow_core as psiflow
from psiflow_core.components import Pool
from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block, BlockState, Scheduler, SchedulerUnavailable, SubmissionRefused, set_up
from psiflow_core.testing import SchedulerContract


def scheduler(**options: object) -> Scheduler:
    return LSF(**options).scheduler(Pool("pool", Path(), ("python",), 1))


def block(folder: Path, name: str = "psiflow-a1-0", command: str = "true") -> Block:
    folder = folder / "jobs of a pool"
    folder.mkdir(exist_ok=True)
    return Block(name, ("sh", "-c", command), folder)


def ended(queue: Scheduler, job: str) -> BlockState:
    wait_until(lambda: queue.states([job])[job].phase == "ended")
    return queue.states([job])[job]


def head(script: str) -> list[str]:
    return [line.removeprefix("#BSUB ") for line in script.splitlines() if line.startswith("#BSUB ")]


class TestJobs(SchedulerContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Path) -> None: ...

    def scheduler(self, setup: str = "") -> Scheduler:
        return scheduler(setup=setup)

    def held(self) -> Scheduler:
        return scheduler(queue="held")


def test_options_become_a_resource_requirement(cluster: Path, tmp_path: Path) -> None:
    options = {"nodes": 2, "nodes_per_task": 2, "cores": 8, "gpus": 1, "memory": 16, "walltime": "1-00:00:30"}
    queue = scheduler(
        **options,
        queue="normal",
        project="abc",
        requirement="select[model==EPYC]",
        memory_counts="slot",
        directives="-B",
    )
    queue.submit(block(tmp_path))
    assert head((tmp_path / "jobs of a pool" / "psiflow-a1-0.sh").read_text()) == [
        "-J psiflow-a1-0",
        "-n 16",
        '-R "span[ptile=8]"',
        "-rn",
        '-R "rusage[mem=2048MB]"',
        '-R "select[model==EPYC]"',
        '-gpu "num=1:mode=shared"',
        "-W 24:01",
        "-q normal",
        "-P abc",
        "-B",
    ]


def test_a_block_of_several_nodes_starts_its_command_once_on_each(cluster: Path, tmp_path: Path) -> None:
    queue = scheduler(nodes=2, cores=4, setup="module load python")
    queue.submit(block(tmp_path))
    script = (tmp_path / "jobs of a pool" / "psiflow-a1-0.sh").read_text()
    assert '-R "span[ptile=4]"' in head(script)
    words = shlex.split(script.partition("\nexec ")[2])
    assert words[:2] == ["/bin/bash", "-c"]
    assert "blaunch -no-shell" in words[2]
    assert words[-1] == "\n".join([*set_up(("module load python",)), "exec sh -c true"])


def test_a_job_that_waits_says_why(cluster: Path, tmp_path: Path) -> None:
    queue = scheduler(queue="held")
    job = queue.submit(block(tmp_path))
    told = "Job slot limit reached; New job is waiting for scheduling;"
    assert queue.states([job])[job] == BlockState("waiting", told)


def test_the_end_of_the_walltime_is_an_interruption(cluster: Path, tmp_path: Path) -> None:
    (cluster / "short_minutes").touch()
    queue = scheduler(walltime=60)
    state = ended(queue, queue.submit(block(tmp_path, command="sleep 60")))
    assert state.interrupted
    assert state.words == "TERM_RUNLIMIT: job killed after reaching LSF run time limit"
    assert state.code is None


@pytest.mark.parametrize("where", ["normal", "held"])
def test_a_cancelled_job_was_interrupted(cluster: Path, tmp_path: Path, where: str) -> None:
    queue = scheduler(queue=where)
    job = queue.submit(block(tmp_path, command="sleep 60"))
    wait_until(lambda: where == "held" or (cluster / job / "pid").exists())
    queue.cancel([job])
    assert ended(queue, job) == BlockState("ended", "TERM_OWNER: job killed by owner", interrupted=True)
    queue.cancel([job])  # once more: it has ended already


def test_an_unknown_queue_is_refused_in_the_words_of_bsub(cluster: Path, tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefused, match="nowhere: No such queue"):
        scheduler(queue="nowhere").submit(block(tmp_path))
    with pytest.raises(SubmissionRefused, match="Too many processors requested"):
        scheduler(cores=513).submit(block(tmp_path))


def test_a_full_queue_and_a_cluster_that_is_down_pass(cluster: Path, tmp_path: Path) -> None:
    with pytest.raises(SchedulerUnavailable, match="Pending job threshold reached"):
        scheduler(queue="full").submit(block(tmp_path))
    queue = scheduler(queue="held")
    job = queue.submit(block(tmp_path))
    (cluster / "down").touch()
    for request in (
        lambda: queue.submit(block(tmp_path)),
        lambda: queue.states([job]),
        lambda: queue.cancel([job]),
        lambda: queue.find("psiflow-"),
    ):
        with pytest.raises(SchedulerUnavailable, match="LIM is down"):
            request()
    (cluster / "down").unlink()
    assert queue.states([job])[job].phase == "waiting"


def test_a_job_that_the_cluster_has_forgotten_has_ended(cluster: Path, tmp_path: Path) -> None:
    queue = scheduler(queue="held")
    job = queue.submit(block(tmp_path))
    states = queue.states([job, "4711"])
    assert states[job].phase == "waiting"
    assert states["4711"] == BlockState("ended", "LSF no longer knows the job")
    queue.cancel([job, "4711"])
    assert ended(queue, job).interrupted


@pytest.mark.parametrize(
    "options",
    [{"queue": "a b"}, {"project": "a;reboot"}, {"requirement": 'mem" -X "'}, {"user_group": "$(reboot)"}],
    ids=str,
)
def test_options_that_could_be_read_as_others_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        psiflow.executor("lsf", **options)
