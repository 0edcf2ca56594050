"""What SLURM prints is understood: lines as SLURM 22.05 prints them, and the states that no test can bring about."""

from __future__ import annotations

import pytest
from psiflow_slurm import _limits, _states
from psiflow_slurm.executor import Slurm

from psiflow_core.execution.blocks import BlockState

QUEUE = """\
2|COMPLETED|n1|2026-11-27T07:20:19|None|ok
8|PENDING||N/A|Priority|psi|odd
6|PENDING||2026-11-27T08:20:18|BeginTime|later
9|PENDING||N/A|PartitionTimeLimit|never
3|RUNNING|n2|2026-11-27T07:20:19|None|there
5|COMPLETING|n2|2026-11-27T07:20:19|None|going
7|CONFIGURING|n[1-2]|2026-11-27T07:20:19|None|boots
1|SUSPENDED|n1|2026-11-27T07:20:19|None|rests
4|SOMETHING_NEW|n1|2026-11-27T07:20:19|None|new
"""

JOB = "JobId=3 JobName=x JobState={} Reason={} Requeue=0 ExitCode={} PreemptTime={} NodeList=n2 Command=/a b/JobState=X"


def found(number: str) -> BlockState:
    return _states.block_of(_states.jobs(QUEUE)[number])


def test_a_job_waits_with_the_scheduler_s_reason() -> None:
    assert found("8") == BlockState("waiting", "PENDING (Priority)")
    assert found("6").words == "PENDING (BeginTime), expected to start at 2026-11-27T08:20:18"
    assert found("7").phase == "waiting"


def test_a_job_that_never_starts_says_so() -> None:
    assert found("9").words == "PENDING (PartitionTimeLimit): no job with these options starts"


@pytest.mark.parametrize("number", ["3", "1", "4"])
def test_a_job_runs_until_it_is_known_to_have_ended(number: str) -> None:
    assert found(number).phase == "running"


@pytest.mark.parametrize(
    ("state", "reason", "exits", "preempted", "interrupted", "code"),
    [
        ("COMPLETED", "None", "0:0", "None", False, 0),
        ("FAILED", "NonZeroExitCode", "3:0", "None", False, 3),
        ("FAILED", "NonZeroExitCode", "0:9", "None", False, None),
        ("OUT_OF_MEMORY", "OutOfMemory", "0:125", "None", False, None),
        ("TIMEOUT", "TimeLimit", "0:15", "None", True, None),
        ("CANCELLED", "None", "0:15", "None", True, None),
        ("NODE_FAIL", "NodeDown", "0:0", "None", True, None),
        ("BOOT_FAIL", "None", "0:0", "None", True, None),
        ("DEADLINE", "DeadLine", "0:0", "None", True, None),
        ("PREEMPTED", "None", "0:15", "2026-11-27T07:20:24", True, None),
    ],
)
def test_ends_are_told_apart(
    state: str, reason: str, exits: str, preempted: str, interrupted: bool, code: int | None
) -> None:
    end = _states.end(JOB.format(state, reason, exits, preempted))
    assert end is not None
    block = end.block()
    assert (block.phase, block.interrupted, block.code) == ("ended", interrupted, code)
    assert block.words.startswith(state)
    assert "on n2" in block.words
    assert (reason in block.words) == (reason != "None")


@pytest.mark.parametrize(
    ("reason", "exits", "preempted", "interrupted"),
    [
        ("TimeLimit", "0:0", "None", True),
        ("None", "0:15", "None", True),
        ("None", "0:0", "2026-11-27T07:20:24", True),
        ("NonZeroExitCode", "1:0", "None", False),
    ],
)
def test_a_job_that_completes_runs_and_it_is_known_whether_it_was_ended(
    reason: str, exits: str, preempted: str, interrupted: bool
) -> None:
    end = _states.end(JOB.format("COMPLETING", reason, exits, preempted))
    assert end is not None
    assert (end.block().phase, end.block().interrupted) == ("running", interrupted)


def test_the_accounts_know_jobs_that_the_queue_has_forgotten() -> None:
    ends = _states.accounted("12|CANCELLED by 1000|0:15|n1\n13|FAILED|2:0|n[1-2]\n14|NODE_FAIL|0:0|None assigned\n")
    assert ends["12"].block() == BlockState("ended", "CANCELLED on n1", interrupted=True)
    assert ends["13"].block() == BlockState("ended", "FAILED on n[1-2]", code=2)
    assert ends["14"].block() == BlockState("ended", "NODE_FAIL", interrupted=True)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("1:00:00", 3600), ("2-00:00:00", 172800), ("30:00", 1800), ("infinite", float("inf")), ("1-12:00:00", 129600)],
)
def test_the_limit_of_a_partition_is_read(limit: str, seconds: float) -> None:
    assert _limits.partitions(f"cpu*|{limit}|4|8|6000")[0].seconds == seconds


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"walltime": "2:00:00"}, "walltime: 7200 s is more than partition 'cpu' has: 1:00:00"),
        ({"nodes": 6}, "nodes: 6 is more than partition 'cpu' has: 5"),
        ({"cores": 65}, "cores: 65 is more than partition 'cpu' has: 64 on a node"),
        ({"memory": 7.5}, "memory: 7.5 GiB is more than partition 'cpu' has: 5.859 GiB on a node"),
        ({"cores": 999, "memory": 999, "partition": "long"}, ""),
        ({"cores": 64, "nodes": 5}, ""),
        ({"walltime": "2:00:00", "partition": "cpu,long"}, ""),
        ({"walltime": "2:00:00", "qos": "any"}, ""),
        ({"walltime": "1:00:00"}, ""),
        ({}, ""),
    ],
)
def test_a_limit_that_slurm_itself_would_let_wait_for_ever_is_known(options: dict[str, object], told: str) -> None:
    partitions = _limits.partitions("cpu*|1:00:00|4|8|6000\ncpu*|1:00:00|1|64|500\nlong|infinite|2|16+|500+\n")
    assert _limits.excess(Slurm.parse(options), partitions) == told
