"""Jobs of a real SLURM: submitted, followed to every kind of end, cancelled, and found again."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from psiflow_slurm._engine import SlurmJobs
from psiflow_slurm.executor import Slurm
from psiflow_toys.cluster import Cluster
from psiflow_toys.waiting import wait_until

from psiflow_core.execution.blocks import Block, BlockState, SchedulerUnavailable, SubmissionRefused
from psiflow_core.testing import SchedulerContract

NUMBERS = itertools.count()


def jobs(**options: Any) -> SlurmJobs:
    return SlurmJobs(Slurm.parse(options))


def block(folder: Path, shell: str, **rest: Any) -> Block:
    return Block(f"psi{os.getpid()}-{next(NUMBERS)}", ("bash", "-c", shell), folder, **rest)


def output(folder: Path, one: Block) -> str:
    return (folder / f"{one.name}.out").read_text()


def state(slurm: SlurmJobs, job: str) -> BlockState:
    return slurm.states([job])[job]


def until(slurm: SlurmJobs, job: str, phase: str) -> BlockState:
    wait_until(lambda: state(slurm, job).phase == phase)
    return state(slurm, job)


class TestJobs(SchedulerContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster) -> None: ...

    def scheduler(self, setup: str = "") -> SlurmJobs:
        return jobs(setup=setup)

    def held(self) -> SlurmJobs:
        return jobs(directives=["--begin=now+1hour"])


def test_a_job_runs_on_a_node_of_its_partition_and_ends_by_itself(slurm: SlurmJobs, tmp_path: Path) -> None:
    one = block(tmp_path, "hostname")
    ended = until(slurm, slurm.submit(one), "ended")
    assert (ended.interrupted, ended.code) == (False, 0)
    assert output(tmp_path, one).strip() in ("n1", "n2")


def test_a_job_that_fails_is_told_with_its_exit_code(slurm: SlurmJobs, tmp_path: Path) -> None:
    ended = until(slurm, slurm.submit(block(tmp_path, "exit 3")), "ended")
    assert (ended.interrupted, ended.code) == (False, 3)
    assert "FAILED (NonZeroExitCode)" in ended.words


def test_a_job_that_was_killed_on_its_node_was_not_ended_by_slurm(slurm: SlurmJobs, tmp_path: Path) -> None:
    ended = until(slurm, slurm.submit(block(tmp_path, "kill -9 $$")), "ended")
    assert not ended.interrupted
    assert "by signal 9" in ended.words


@pytest.mark.parametrize("awkward", ["a b", "it's", 'say "x"', "%j of #1", "$(id)", "a;b", "ü"])
def test_a_folder_may_have_any_name(slurm: SlurmJobs, tmp_path: Path, awkward: str) -> None:
    folder = tmp_path / awkward
    folder.mkdir()
    one = Block("psi-name", ("bash", "-c", 'printf "%s\n" "$PWD" "$1"', "x", f"a '{awkward}\""), folder)
    until(slurm, slurm.submit(one), "ended")
    assert output(folder, one).splitlines() == [str(folder), f"a '{awkward}\""]


def test_lines_of_set_up_run_before_the_command_on_its_node(cluster: Cluster, tmp_path: Path) -> None:
    slurm, one = jobs(setup=["export MODULES=loaded", "cd /"]), block(tmp_path, "echo $MODULES $PWD")
    until(slurm, slurm.submit(one), "ended")
    assert output(tmp_path, one).split() == ["loaded", "/"]


def test_a_node_has_a_task_for_each_core(cluster: Cluster, tmp_path: Path) -> None:
    slurm = jobs(cores=2, memory=1.5, walltime=600)
    one = block(tmp_path, "echo $SLURM_TASKS_PER_NODE; scontrol show job $SLURM_JOB_ID")
    until(slurm, slurm.submit(one), "ended")
    tasks, *asked = output(tmp_path, one).split()
    assert tasks == "2"
    assert {"MinMemoryNode=1.50G", "TimeLimit=00:10:00", "Requeue=0", f"JobName={one.name}"} <= set(asked)


def test_a_job_asks_for_gpus_by_number_and_type(cluster: Cluster, tmp_path: Path) -> None:
    slurm, one = jobs(partition="gpu", gpus=1, gpu_type="a100"), block(tmp_path, "echo $CUDA_VISIBLE_DEVICES")
    until(slurm, slurm.submit(one), "ended")
    assert output(tmp_path, one).strip() == "0"


def test_a_command_runs_on_every_node_of_a_job_or_on_the_first_alone(cluster: Cluster, tmp_path: Path) -> None:
    slurm = jobs(nodes=2, cores=2)
    every, first = block(tmp_path, "hostname"), block(tmp_path, "hostname", on_every_node=False)
    for one in (every, first):
        until(slurm, slurm.submit(one), "ended")
    assert sorted(output(tmp_path, every).split()) == ["n1", "n2"]
    assert output(tmp_path, first).split() == ["n1"]


def test_a_host_is_avoided_and_a_name_that_slurm_does_not_know_is_no_error(cluster: Cluster, tmp_path: Path) -> None:
    slurm, one = jobs(partition="mixed"), block(tmp_path, "hostname", avoid=("n3.cluster", "a-laptop"))
    until(slurm, slurm.submit(one), "ended")
    assert output(tmp_path, one).strip() == "n1"


def test_a_job_waits_with_slurm_s_reason_and_is_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    slurm = jobs(directives=["--begin=now+1hour"])
    job = slurm.submit(block(tmp_path, "true"))
    wait_until(lambda: "BeginTime" in state(slurm, job).words)
    assert state(slurm, job).phase == "waiting"
    slurm.cancel([job])
    assert until(slurm, job, "ended").interrupted


def test_a_running_job_is_cancelled_with_all_its_processes(slurm: SlurmJobs, cluster: Cluster, tmp_path: Path) -> None:
    job = slurm.submit(block(tmp_path, "sleep 1000 & wait"))
    until(slurm, job, "running")
    slurm.cancel([job])
    ended = until(slurm, job, "ended")
    assert ended.interrupted
    assert ended.words.startswith("CANCELLED on n")
    slurm.cancel([job, "99999"])
    assert not cluster.jobs()


def test_a_preempted_job_was_interrupted_and_does_not_come_back(cluster: Cluster, tmp_path: Path) -> None:
    ordinary, urgent = jobs(nodes=2, cores=2), jobs(nodes=2, cores=2, partition="urgent")
    job = ordinary.submit(block(tmp_path, "sleep 1000"))
    until(ordinary, job, "running")
    until(urgent, urgent.submit(block(tmp_path, "true")), "ended")
    ended = until(ordinary, job, "ended")
    assert ended.interrupted
    assert ended.words.startswith("PREEMPTED")


def test_a_job_whose_node_lost_its_power_was_interrupted(cluster: Cluster, tmp_path: Path) -> None:
    slurm = jobs(directives=["--nodelist=n2"])
    job = slurm.submit(block(tmp_path, "sleep 1000"))
    until(slurm, job, "running")
    try:
        cluster.power_off("n2")
        ended = until(slurm, job, "ended")
    finally:
        cluster.power_on("n2")
    assert ended.interrupted
    assert ended.words.startswith("NODE_FAIL")


def test_a_job_that_slurm_does_not_know_has_ended(slurm: SlurmJobs) -> None:
    ended = state(slurm, "99999")
    assert (ended.phase, ended.interrupted) == ("ended", False)
    assert "no longer knows job 99999" in ended.words


def test_jobs_are_found_by_the_first_letters_of_their_names(slurm: SlurmJobs, tmp_path: Path) -> None:
    names = ["psiab-1", "psiab-2", "psiac-1"]
    started = {name: slurm.submit(Block(name, ("sleep", "1000"), tmp_path)) for name in names}
    assert slurm.find("psiab") == {name: started[name] for name in names[:2]}
    slurm.cancel([started["psiab-1"]])
    wait_until(lambda: slurm.find("psiab") == {"psiab-2": started["psiab-2"]})
    assert slurm.find("psinone") == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "gpuu"}, r"invalid partition specified: gpuu.*Partitions: cpu \(the default\) up to 1:00:00,"),
        ({"walltime": "2:00:00"}, "walltime: 7200 s is more than partition 'cpu' has: 1:00:00"),
        ({"nodes": 3}, "nodes: 3 is more than partition 'cpu' has: 2"),
        ({"cores": 64}, "cores: 64 is more than partition 'cpu' has: 2 on a node"),
        ({"memory": 1000, "qos": "x"}, "Memory specification can not be satisfied"),
        ({"gpus": 1}, "Requested node configuration is not available"),
        ({"constraint": "skylake"}, "Invalid feature specification"),
        ({"reservation": "night"}, "Requested reservation is invalid"),
        ({"directives": ["--no-such-option=1"]}, "unrecognized option"),
    ],
)
def test_a_job_that_can_never_run_is_refused_in_slurm_s_words(
    cluster: Cluster, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SubmissionRefused, match=words):
        jobs(**options).submit(block(tmp_path, "true"))
    assert not cluster.jobs()


def test_a_controller_that_is_down_is_unavailable_and_its_jobs_live_on(
    slurm: SlurmJobs, cluster: Cluster, tmp_path: Path
) -> None:
    job = slurm.submit(block(tmp_path, "sleep 1000"))
    until(slurm, job, "running")
    with cluster.controller_down():
        for ask in (lambda: slurm.submit(block(tmp_path, "true")), lambda: slurm.states([job])):
            with pytest.raises(SchedulerUnavailable, match="Unable to contact slurm controller"):
                ask()
    assert until(slurm, job, "running").phase == "running"


def test_a_submission_that_timed_out_may_have_succeeded_and_is_found(
    slurm: SlurmJobs, cluster: Cluster, tmp_path: Path
) -> None:
    until(slurm, slurm.submit(block(tmp_path, "true")), "ended")
    with cluster.controller_stopped(), pytest.raises(SchedulerUnavailable, match="timed out"):
        slurm.submit(Block("psilost-1", ("sleep", "1000"), tmp_path))
    wait_until(lambda: slurm.find("psilost"))
    slurm.cancel(slurm.find("psilost").values())


def test_a_command_that_does_not_answer_is_unavailable(
    slurm: SlurmJobs, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "deadline", 0.5)
    with cluster.controller_stopped(), pytest.raises(SchedulerUnavailable, match="did not answer within"):
        slurm.find("psi")


def test_a_host_without_slurm_is_told_once(slurm: SlurmJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionRefused, match="cannot be started on this host"):
        slurm.submit(block(tmp_path, "true"))


def test_the_job_in_which_a_driver_runs_and_a_user_s_defaults_do_not_change_its_blocks(
    slurm: SlurmJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SBATCH_PARTITION": "nowhere", "SLURM_NTASKS": "7", "SQUEUE_PARTITION": "gpu"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OF_THE_USER", "kept")
    one = block(tmp_path, "echo $SLURM_NTASKS $OF_THE_USER")
    until(slurm, slurm.submit(one), "ended")
    assert output(tmp_path, one).split() == ["1", "kept"]


def test_a_job_that_has_used_up_its_time_was_interrupted(slurm: SlurmJobs, too_long: str) -> None:
    ended = until(slurm, too_long, "ended")
    assert ended.interrupted
    assert ended.words == "TIMEOUT (TimeLimit) on n4"
