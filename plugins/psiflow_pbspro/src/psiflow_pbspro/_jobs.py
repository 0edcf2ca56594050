"""The attributes of jobs, as `qstat -f` prints them."""

from __future__ import annotations

from collections.abc import Mapping

from psiflow_core.execution.blocks import BlockState

TERMINATED = "91"
"""The substate of a job that was deleted."""

LIMITS = {-24: "too many CPUs", -25: "too much CPU time", -26: "too much virtual memory", -27: "too much memory"}
LIMITS |= {-28: "too much CPU time", -29: "walltime exceeded"}
"""Exit statuses of jobs that PBS ended at a limit."""

WALLTIME = -29
RESTARTED = {-4, -5, -6}
"""Exit statuses of jobs whose host was restarted."""

SIGNAL = 256
"""A job ended by signal N has the exit status 256 + N."""

ENDED_BY = {SIGNAL + 9, SIGNAL + 15}
"""SIGKILL and SIGTERM, by which PBS ends jobs."""


def read(text: str) -> dict[str, dict[str, str]]:
    """The attributes of each job, by its id. Long values go on in lines that begin with a tab."""
    jobs: dict[str, dict[str, str]] = {}
    for line in text.replace("\n\t", "").splitlines():
        if line.startswith("Job Id:"):
            fields: dict[str, str] = {}
            jobs[line.partition(":")[2].strip()] = fields
        elif " = " in line and jobs:
            name, _, value = line.strip().partition(" = ")
            fields[name] = value
    return jobs


def has_ended(fields: Mapping[str, str]) -> bool:
    return fields.get("job_state") in {"F", "X"}


def state(fields: Mapping[str, str]) -> BlockState:
    """The state of a job: Q, H, W, T and M wait; B, R, S, U and E hold their nodes; F and X have ended."""
    if has_ended(fields):
        return _ended(fields)
    waits = fields.get("job_state", "Q") in "QHWTM"
    return BlockState("waiting" if waits else "running", fields.get("comment", ""))


def _ended(fields: Mapping[str, str]) -> BlockState:
    comment = fields.get("comment", "")
    if "Exit_status" not in fields:
        return BlockState("ended", comment or "deleted before it ran", interrupted=True)
    code = int(fields["Exit_status"])
    deleted = fields.get("substate") == TERMINATED
    overdue = code != 0 and _seconds(fields, "resources_used") >= _seconds(fields, "Resource_List") > 0
    interrupted = deleted or overdue or code == WALLTIME or code in RESTARTED | ENDED_BY
    reason = LIMITS.get(code) or ("deleted" if deleted else "walltime exceeded" if overdue else "")
    words = ": ".join(filter(None, (reason, comment)))
    return BlockState("ended", words, interrupted, code if 0 <= code < SIGNAL else None)


def _seconds(fields: Mapping[str, str], resource: str) -> float:
    """The wall time that a job used, or asked for; 0 if that is not told. [s]"""
    found = 0
    for part in fields.get(f"{resource}.walltime", "0").split(":"):
        found = 60 * found + int(part)
    return found
