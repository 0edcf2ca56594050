"""The commands of PBS: qsub, qstat, qselect and qdel."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from psiflow_core.execution.blocks import Answer, BatchSystem, Block, BlockState, SchedulerUnavailable, set_up
from psiflow_pbspro import _jobs
from psiflow_pbspro.options import PBSProOptions

LATER = re.compile(
    r"cannot connect|connection|communication|timed? ?out|end of file|temporarily unavailable|try .*again"
    r"|maximum number of jobs|would exceed|shutting down|no free connections|could not contact|licen[sc]e"
    r"|queue is not enabled|internal error|system error",
    re.IGNORECASE,
)
"""Words of a failure that passes: a server that is down, a queue that is full. PBS itself never gives a reason why it
refuses a job for good in these words; all other failures of a submission count as final."""

NO_HISTORY = "not configured to maintain job history"
UNKNOWN = re.compile(r"Unknown Job Id\S*\s+(\S+)", re.IGNORECASE)
ENDED = re.compile(r"Unknown Job Id|Job has finished|Request invalid for state of job", re.IGNORECASE)
"""Words of qdel about a job that has ended already, or that another qdel is ending."""


class PBS(BatchSystem):
    """Jobs of PBS Professional or OpenPBS."""

    options: PBSProOptions

    def __init__(self, options: PBSProOptions) -> None:
        super().__init__(options)
        self.options = options
        self._history = True

    def head(self, block: Block) -> Sequence[str]:
        given = self.options
        lines = [f"-N {block.name}", f"-l select={select(given)}", f"-l place={given.place}", "-r n", "-j oe"]
        lines += [f"-l walltime={clock(given.walltime)}"] if given.walltime else []
        named = {"-q": given.queue, "-A": given.account, "-P": given.project}
        lines += [f"{flag} {value}" for flag, value in named.items() if value]
        return [f"#PBS {line}" for line in lines]

    def directive(self, line: str) -> str:
        return line if line.startswith("#") else f"#PBS {line}"

    def submission(self, script: Path, block: Block) -> Sequence[str]:
        return ["qsub", "-o", str(self.output(block)), str(script)]

    def job(self, answer: Answer) -> str:
        lines = answer.output.split()
        return lines[-1] if lines and re.match(r"\d+", lines[-1]) else ""

    def refused(self, answer: Answer) -> bool:
        return not LATER.search(f"{answer.errors} {answer.output}")

    def launch(self, command: Sequence[str]) -> Sequence[str]:
        """By pbsdsh, once for each chunk, which has one MPI process then. It hands no environment on: the lines of
        set-up run on every node.
        """
        body = "\n".join([*set_up(self.options.setup), f"exec {shlex.join(command)}"])
        return ["pbsdsh", "--", "/bin/bash", "-c", body]

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        if not ids:
            return {}
        flags = ["-x", "-f"] if self._history else ["-f"]
        answer = self.ask(["qstat", *flags, *ids])
        if self._history and NO_HISTORY in answer.errors:
            self._history = False
            return self.states(ids)
        found = {job: _jobs.state(fields) for job, fields in _jobs.read(answer.output).items()}
        gone = set(UNKNOWN.findall(answer.errors))
        if answer.code != 0 and not set(ids) <= {*found, *gone}:
            raise SchedulerUnavailable(answer.words)
        return {job: found.get(job, BlockState("ended", "PBS no longer knows the job")) for job in ids}

    def cancel(self, ids: Collection[str]) -> None:
        if not ids:
            return
        answer = self.ask(["qdel", *ids])
        failures = [line for line in answer.errors.splitlines() if line.strip() and not ENDED.search(line)]
        if answer.code != 0 and failures:
            raise SchedulerUnavailable(answer.words)

    def find(self, tag: str) -> Mapping[str, str]:
        selected = self._told(["qselect", "-u", getpass.getuser()]).output.split()
        if not selected:
            return {}
        answer = self.ask(["qstat", "-f", *selected])  # a job may have ended between the two commands
        if answer.code != 0 and not UNKNOWN.search(answer.errors) and not ENDED.search(answer.errors):
            raise SchedulerUnavailable(answer.words)
        jobs = _jobs.read(answer.output)
        names = {job: fields.get("Job_Name", "") for job, fields in jobs.items() if not _jobs.has_ended(fields)}
        return {name: job for job, name in names.items() if name.startswith(tag)}

    def _told(self, command: Sequence[str]) -> Answer:
        answer = self.ask(command)
        if answer.code != 0:
            raise SchedulerUnavailable(answer.words)
        return answer


def select(options: PBSProOptions) -> str:
    """The select statement: one chunk for each node.

    `mpiprocs` makes the lines of a chunk in the job's list of nodes, and pbsdsh starts a process for each line.
    """
    pbsdsh = options.nodes > 1 and options.nodes_per_task == 1
    parts = [f"{options.nodes}:ncpus={options.cores}", f"mpiprocs={1 if pbsdsh else options.cores}"]
    parts += [f"ngpus={options.gpus}"] if options.gpus else []
    parts += [f"mem={round(options.memory * 1024)}mb"] if options.memory else []
    return ":".join([*parts, *([options.chunk] if options.chunk else [])])


def clock(time: float) -> str:
    """A time as HH:MM:SS; of a fraction of a second the next one. [s]"""
    whole = int(-(-time // 1))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
