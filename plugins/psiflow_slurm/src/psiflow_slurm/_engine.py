"""Jobs of SLURM, by its own commands."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from psiflow_core.execution.blocks import (
    Answer,
    BatchSystem,
    Block,
    BlockState,
    SchedulerUnavailable,
    SubmissionRefused,
)
from psiflow_slurm import _limits, _states
from psiflow_slurm.options import SlurmOptions

LATER = re.compile(
    r"contact slurm controller|timed out|Connection (refused|reset)|standby mode|authentication (error|credential)"
    r"|Munge|Transport endpoint|Zero Bytes|temporarily|MaxSubmit|not available now|at this time|I/O error"
    r"|configuration source|Unable to resolve|Unexpected message|slurmdbd|database",
    re.IGNORECASE,
)
"""Words of `sbatch` about a controller that does not answer or a user who has enough jobs, not about the job."""

GONE = re.compile(r"Invalid job id|already complet", re.IGNORECASE)
"""Words about jobs that have ended."""

KEPT = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}
"""Variables that say which SLURM is asked."""

FOREIGN = re.compile(r"(SLURM|SBATCH|SQUEUE|SCANCEL|SINFO|SACCT)_\w+")
"""Variables of the job in which the driver itself may run, and a user's defaults: both would change the options."""


class SlurmJobs(BatchSystem):
    """Each block is one job."""

    options: SlurmOptions

    def __init__(self, options: SlurmOptions) -> None:
        super().__init__(options)
        self.interval = options.poll
        self._within_limits = False

    def head(self, block: Block) -> Sequence[str]:
        options = self.options
        lines = {
            "job-name": block.name,
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "constraint": options.constraint,
            "reservation": options.reservation,
            "nodes": options.nodes,
            "ntasks-per-node": options.cores,
            "cpus-per-task": 1,
            "gres": self._gpus(),
            "mem": None if options.memory is None else f"{math.ceil(1024 * options.memory)}M",
            "time": None if options.walltime is None else clock(options.walltime),
            "signal": self._signal(block),
            "export": "ALL",
        }
        flags = ["no-requeue", *(["exclusive"] if options.exclusive else [])]
        given = [f"{name}={value}" for name, value in lines.items() if value is not None]
        return [f"#SBATCH --{one}" for one in (*given, *flags)]

    def directive(self, line: str) -> str:
        return line if line.startswith("#SBATCH ") else f"#SBATCH {line}"

    def submission(self, script: Path, block: Block) -> Sequence[str]:
        """Paths are words here: in the script, spaces and quotes would have a meaning."""
        avoided = self._known_nodes(block.avoid) if block.avoid else []
        return [
            "sbatch",
            "--parsable",
            f"--chdir={block.folder if self.options.shared else '/tmp'}",
            f"--output={str(self.output(block)).replace('%', '%%')}",
            *([f"--exclude={','.join(avoided)}"] if avoided else []),
            str(script),
        ]

    def launch(self, command: Sequence[str]) -> Sequence[str]:
        launcher = self.options.launcher.format(nodes=self.options.nodes, cores=self.options.cores)
        return [*shlex.split(launcher), *command]

    def submit(self, block: Block) -> str:
        if not self._within_limits:
            if exceeded := _limits.excess(self.options, self._partitions()):
                raise SubmissionRefused(exceeded)
            self._within_limits = True
        try:
            return super().submit(block)
        except SubmissionRefused as error:
            if "partition" not in str(error).lower():
                raise
            raise SubmissionRefused(f"{error}. Partitions: {_limits.told(self._partitions())}") from error

    def job(self, answer: Answer) -> str:
        found = re.search(r"^(\d+)(;.*)?$", answer.output, re.MULTILINE)  # "12;cluster"
        return found[1] if found else ""

    def refused(self, answer: Answer) -> bool:
        return LATER.search(answer.errors + answer.output) is None

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        known = self._queue("--states=all")
        ends = {job: self._end(job) for job in ids if job in known and (known[job].ended or known[job].completing)}
        lost = [job for job in ids if job not in known or (job in ends and ends[job] is None)]
        accounted = self._accounted(lost) if lost else {}
        return {job: _state(job, known.get(job), ends.get(job) or accounted.get(job)) for job in ids}

    def cancel(self, ids: Collection[str]) -> None:
        if not ids:
            return
        answer = self.ask(["scancel", *sorted(ids)])
        rest = [line for line in answer.errors.splitlines() if line.strip() and not GONE.search(line)]
        if answer.code != 0 and rest:
            raise SchedulerUnavailable(answer.words)

    def find(self, tag: str) -> Mapping[str, str]:
        return {job.name: number for number, job in self._queue().items() if job.name.startswith(tag)}

    def ask(self, command: Sequence[str], given: str = "") -> Answer:
        foreign = [name for name in os.environ if FOREIGN.fullmatch(name) and name not in KEPT]
        unset = ["env", *(word for name in foreign for word in ("-u", name))] if foreign else []
        return super().ask([*unset, *command], given)

    def _gpus(self) -> str | None:
        words = ["gpu", *([self.options.gpu_type] if self.options.gpu_type else []), str(self.options.gpus)]
        return ":".join(words) if self.options.gpus else None

    def _signal(self, block: Block) -> str | None:
        """To the script alone, which the guard has replaced; on several nodes to the steps, whose guards they are."""
        options = self.options
        seconds = options.notice if options.walltime is None else min(options.notice, int(options.walltime / 10))
        whom = "" if options.nodes > 1 and block.on_every_node else "B:"
        return f"{whom}TERM@{seconds}" if seconds else None

    def _queue(self, *which: str) -> dict[str, _states.Job]:
        """This user's jobs that SLURM knows."""
        told = self._told("squeue", "--noheader", f"--user={os.getuid()}", f"--format={_states.FORMAT}", *which)
        return _states.jobs(told)

    def _end(self, job: str) -> _states.End | None:
        """The end of a job; None if SLURM has forgotten it since."""
        answer = self.ask(["scontrol", "--oneliner", "show", "job", job])
        if answer.code != 0 and not GONE.search(answer.errors):
            raise SchedulerUnavailable(answer.words)
        return _states.end(answer.output)

    def _accounted(self, ids: Collection[str]) -> dict[str, _states.End]:
        """The ends of jobs that only the accounts still know; empty where SLURM keeps none."""
        fields = "--format=JobIDRaw,State,ExitCode,NodeList"
        asked = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(sorted(ids))}", fields]
        answer = self.ask(asked)
        return _states.accounted(answer.output) if answer.code == 0 else {}

    def _partitions(self) -> list[_limits.Partition]:
        return _limits.partitions(self._told("sinfo", "--all", "--noheader", f"--format={_limits.FORMAT}"))

    def _known_nodes(self, hosts: Sequence[str]) -> list[str]:
        """The nodes among these hosts: `sbatch` refuses a job that avoids a node that it does not know."""
        nodes = set(self._told("sinfo", "--all", "--noheader", "--Node", "--format=%N").split())
        return sorted(nodes & {name for host in hosts for name in (host, host.partition(".")[0])})

    def _told(self, *command: str) -> str:
        answer = self.ask(command)
        if answer.code != 0:
            raise SchedulerUnavailable(answer.words)
        return answer.output


def clock(seconds: float) -> str:
    """A time as `sbatch` reads it, D-HH:MM:SS."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{rest:02}"


def _state(job: str, known: _states.Job | None, end: _states.End | None) -> BlockState:
    if end is not None:
        return end.block()
    if known is None:
        return BlockState("ended", f"SLURM no longer knows job {job}, and has no accounts of it")
    return _states.End(known.state, known.reason, known.nodes).block() if known.ended else _states.block_of(known)
