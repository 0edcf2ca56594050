"""The states of jobs, as `squeue`, `scontrol` and `sacct` print them, and their meaning for a block."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psiflow_core.execution.blocks import BlockState

WAITING = {
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
}
"""States before a job's script has started, or before it starts again."""

ENDED = {"COMPLETED", "FAILED", "OUT_OF_MEMORY"}
"""States of jobs that ended by themselves, or were ended for what they did."""

INTERRUPTED = {
    *("BOOT_FAIL", "CANCELLED", "DEADLINE", "LAUNCH_FAILED", "NODE_FAIL", "PREEMPTED", "RECONFIG_FAIL", "REVOKED"),
    "TIMEOUT",
}
"""States of jobs that SLURM, an administrator or a user ended."""

NEVER = re.compile(
    r"Partition(Config|NodeLimit|TimeLimit)|Bad(Constraints|Account)|Invalid(Account|QOS)|JobHeldAdmin|"
    r"(Assoc|QOS)\w*(MaxWallDurationPerJob|Max\w+PerJob|Max\w+PerNode|MinCpu\w*|MinGRES)\w*"
)
"""Reasons of waiting jobs that time alone does not change."""

FORMAT = "%i|%T|%N|%S|%r|%j"
"""Of `squeue`: id, state, nodes, start or expected start, reason, name."""


@dataclass(frozen=True)
class Job:
    """One line of `squeue`."""

    number: str
    state: str
    nodes: str
    start: str
    reason: str
    name: str

    @property
    def completing(self) -> bool:
        """Whether it has ended, but not all of its processes have."""
        return self.state == "COMPLETING"

    @property
    def ended(self) -> bool:
        return self.state in ENDED | INTERRUPTED


@dataclass(frozen=True)
class End:
    """How a job ended, or is ending."""

    state: str
    reason: str = ""
    nodes: str = ""
    code: int | None = None
    """The exit code of its script."""
    signal: int = 0
    """The signal that ended its script."""
    preempted: bool = False

    @property
    def interrupted(self) -> bool:
        """While it completes, its state is not shown: a job that was told to end is taken for one that was ended."""
        return self.state in INTERRUPTED or (
            self.state == "COMPLETING" and (self.signal == 15 or self.preempted or self.reason == "TimeLimit")
        )

    def block(self) -> BlockState:
        told = [self.state, f"({self.reason})" if self.reason else "", f"on {self.nodes}" if self.nodes else ""]
        if self.signal and not self.interrupted:
            told.append(f"by signal {self.signal}")
        code = self.code if self.state in ENDED and not self.signal else None
        words = " ".join(filter(None, told))
        return BlockState("running" if self.state == "COMPLETING" else "ended", words, self.interrupted, code)


def jobs(printed: str) -> dict[str, Job]:
    """The jobs in the output of `squeue`, by id."""
    rows = [line.split("|", 5) for line in printed.splitlines() if line.count("|") >= 5]
    return {row[0]: Job(*(_given(one) for one in row)) for row in rows}


def block_of(job: Job) -> BlockState:
    """The state of a job that has not ended. An unknown state is that of a job that runs: it will end."""
    if job.state not in WAITING:
        return BlockState("running", " ".join(filter(None, [job.state, f"on {job.nodes}" if job.nodes else ""])))
    words = f"{job.state} ({job.reason})" if job.reason else job.state
    if NEVER.fullmatch(job.reason):
        words += ": no job with these options starts"
    elif job.start:
        words += f", expected to start at {job.start}"
    return BlockState("waiting", words)


def end(printed: str) -> End | None:
    """The end of a job in the output of `scontrol --oneliner show job`; None if SLURM no longer knows it."""
    fields = dict(re.findall(r"(?:^|\s)([A-Z]\w+)=(\S*)", printed))
    if "JobState" not in fields:
        return None
    code, signal = _exit(fields.get("ExitCode", ""))
    preempted = bool(_given(fields.get("PreemptTime", "")))
    state, reason, nodes = (_given(fields.get(name, "")) for name in ("JobState", "Reason", "NodeList"))
    return End(state, reason, nodes, code, signal, preempted)


def accounted(printed: str) -> dict[str, End]:
    """Ends by job, in the output of `sacct --parsable2 --format=JobIDRaw,State,ExitCode,NodeList`."""
    found = {}
    for line in printed.splitlines():
        number, state, exits, nodes = line.split("|")
        code, signal = _exit(exits)
        found[number] = End(state.split()[0], "", _given(nodes), code, signal)  # "CANCELLED by 1000"
    return found


def _exit(printed: str) -> tuple[int | None, int]:
    """Exit code and signal of `3:0`."""
    found = re.fullmatch(r"(\d+):(\d+)", printed)
    return (int(found[1]), int(found[2])) if found else (None, 0)


def _given(printed: str) -> str:
    """A field, empty if SLURM prints a word for nothing."""
    return "" if printed.strip() in ("None", "N/A", "(null)", "Unknown", "None assigned") else printed.strip()
