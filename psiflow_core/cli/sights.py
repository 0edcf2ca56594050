"""The findings of `psiflow doctor` about a pool, from what its workers have seen. Each failed one names its fix."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from psiflow_core.cli.machine import Finding
from psiflow_core.components import Resources
from psiflow_core.execution.tasks.survey import Surveyed
from psiflow_core.processes.launchers import Ranks
from psiflow_core.report.times import clock

SPACE = 1.0
"""The scratch space that a label needs. [GiB]"""

SLOW = 20.0
"""Scratch folders below this speed slow labels down. [MiB/s]"""


AS_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
"""Open MPI refuses to run as root, in a container for instance, without these variables."""


@dataclass(frozen=True)
class Sights:
    """One pool, and what one or two of its tasks have seen."""

    pool: str
    resources: Resources
    tasks: Sequence[Surveyed]
    """They ran at once, if there are two."""
    wait: float
    """From the submission to the start of the first task. [s]"""
    late: float | None
    """How long a file of a worker took to be seen by the driver; None if it was never seen. [s]"""
    nodes: int = 1
    """Nodes of a task."""
    remote: bool = False
    """Whether blocks are jobs that end."""

    def findings(self) -> Iterator[Finding]:
        """All findings."""
        yield self._answer()
        yield self._versions()
        yield from filter(None, [self._setup()])
        yield self._cores()
        yield from filter(None, [self._gpus()])
        yield from self._mpi()
        yield from filter(None, [self._scratch()])
        yield self._folder()
        yield from filter(None, [self._time()])

    def _say(self, what: str, found: str, fix: str = "") -> Finding:
        return Finding("bad" if fix else "good", f"{self.pool} {what}", found, fix)

    def _open(self, what: str, found: str, fix: str = "") -> Finding:
        return Finding("open", f"{self.pool} {what}", found, fix)

    def _answer(self) -> Finding:
        first = self.tasks[0]
        hosts = " and ".join(dict.fromkeys(one.host for one in self.tasks))
        if first.age is None:
            return self._say("workers", f"tasks run in the driver's own process, on {hosts}")
        queue = max(0.0, self.wait - first.age)
        found = f"the block started after {queue:.0f} s, and its first task {first.age:.1f} s later, on {hosts}"
        return self._say("workers", found)

    def _versions(self) -> Finding:
        first = self.tasks[0]
        here = {name: version(name) for name in first.versions}
        told = ", ".join([f"Python {first.python}", *(f"{name} {one}" for name, one in first.versions.items())])
        minor = first.python.split(".")[:2] == platform.python_version().split(".")[:2]
        if minor and first.versions == here:
            return self._say("environment", f"{told}, in {first.prefix}")
        ours = ", ".join([f"Python {platform.python_version()}", *(f"{name} {one}" for name, one in here.items())])
        fix = f"install the driver's versions in {first.prefix}"
        return self._say("environment", f"{told}; the driver has {ours}", fix)

    def _setup(self) -> Finding | None:
        failed = next((one.failed_setup for one in self.tasks if one.failed_setup), "")
        fix = "correct it, or let it end with '|| true'; its words are in the output of the block's script"
        return self._say("setup", f"this line has failed: {failed}", fix) if failed else None

    def _cores(self) -> Finding:
        """Two tasks on one host need as many cores together as they may use threads."""
        first, *others = self.tasks
        if self.nodes > 1:
            return self._say("cores", f"a task has {first.threads} on {self.nodes} nodes; here {spans(first.cores)}")
        if len(first.cores) < first.threads:
            found = f"a worker may use the cores {spans(first.cores)}, and its tasks get {first.threads} threads"
            return self._say("cores", found, "ask for more cores in a block, or set cores_per_worker lower")
        second = next((one for one in others if _at_once(first, one)), None)
        if second is None:
            return self._say("cores", f"a task may use {first.threads} of the cores {spans(first.cores)}")
        shared = sorted({*first.cores, *second.cores})
        if len(shared) < first.threads + second.threads:
            found = f"two tasks at once have the cores {spans(shared)} together, and need {first.threads} each"
            return self._say("cores", found, "ask for more cores in a block, or for fewer workers")
        if set(first.cores) & set(second.cores):
            return self._say("cores", f"two tasks share the cores {spans(shared)}, and need {first.threads} each")
        return self._say("cores", f"two tasks have the cores {spans(first.cores)}, and {spans(second.cores)}")

    def _gpus(self) -> Finding | None:
        gpus = sorted({gpu for one in self.tasks for gpu in one.gpus})
        if self.resources.device == "cuda":
            if not gpus:
                fix = "ask the scheduler for GPUs, and check CUDA_VISIBLE_DEVICES and nvidia-smi on the node"
                return self._say("GPUs", "device is cuda, and a worker sees no GPU", fix)
            alike = len(self.tasks) > 1 and len(gpus) == 1
            return self._say("GPUs", "; ".join(gpus) + (", shared by two tasks" if alike else ""))
        if gpus:
            found = f"{'; '.join(gpus)}: not used, because device is cpu"
            return self._open("GPUs", found, "to use them: device: cuda")
        return None

    def _mpi(self) -> Iterator[Finding]:
        launchers = [one.launcher for one in self.tasks[0].ranks]
        if not launchers:
            fix = "for codes with MPI: load their module in the option setup"
            yield self._open("MPI", "workers find no launcher (mpirun, srun)", fix)
        found = [
            self._launcher([one for task in self.tasks for one in task.ranks if one.launcher == launcher])
            for launcher in launchers
        ]
        works = any(one.verdict == "good" for one in found)
        yield from (replace(one, verdict="open") if works and one.verdict == "bad" else one for one in found)

    def _launcher(self, jobs: Sequence[Ranks]) -> Finding:
        """Whether ranks started, found each other, and have cores of their own beside another task's."""
        name, asked, command = f"MPI by {jobs[0].launcher}", jobs[0].asked, jobs[0].command
        for job in jobs:
            if len(job.worlds) < job.asked:
                found = f"{len(job.worlds)} of {job.asked} ranks answered: {job.words or 'no error output'}"
                return self._say(name, found, _remedy(job))
            if set(job.worlds) == {1}:
                found = f"{job.asked} ranks start, and each is alone: the launcher belongs to another MPI library"
                return self._say(name, found, "load one MPI module, and start codes by its own launcher")
        hosts = sorted({host for job in jobs for host in job.hosts})
        if self.nodes > len(hosts):
            fix = "start codes by a launcher that sees the allocation: the option launch of the reference"
            return self._say(name, f"{asked} ranks are all on {', '.join(hosts)}, not on {self.nodes} nodes", fix)
        used = sorted({core for job in jobs for rank in job.cores for core in rank})
        if clash := self._clash(jobs):
            found = f"{len(jobs)} jobs of {asked} ranks at once share the cores {spans(clash)}"
            return self._say(name, found, "keep the launcher from binding ranks: --bind-to none, or srun --exact")
        if 0 in jobs[0].worlds:
            return self._open(name, f"{asked} ranks start on cores {spans(used)}; no MPI library was found to ask")
        together = f"{len(jobs)} jobs at once, each of " if len(jobs) > 1 else ""
        found = f"{together}{asked} ranks in one world, on {', '.join(hosts)}, cores {spans(used)}: {command}"
        return self._say(name, found)

    def _clash(self, jobs: Sequence[Ranks]) -> list[int]:
        """Cores on which the ranks of two tasks are, although each could have cores of its own; empty if none."""
        if len(jobs) < 2 or self.nodes > 1 or not _at_once(*self.tasks[:2]):
            return []
        first, second = ({core for rank in job.cores for core in rank} for job in jobs[:2])
        apart = not set(self.tasks[0].cores) & set(self.tasks[1].cores)
        room = self.tasks[0].threads >= jobs[0].asked  # otherwise ranks outnumber the cores, and have to share
        crowded = room and len(first | second) < 2 * jobs[0].asked
        return sorted(first & second) if apart or crowded else []

    def _scratch(self) -> Finding | None:
        scratch = self.tasks[0].scratch
        if scratch is None:
            return None
        found = f"{scratch.folder}, {scratch.free:.1f} GiB free, {scratch.speed:.0f} MiB/s"
        if scratch.free < SPACE:
            return self._say("scratch", found, "set TMPDIR to a larger folder in the option setup")
        if scratch.speed < SLOW:
            fix = "it is slow; set TMPDIR to a local disk of the node in the option setup"
            return self._open("scratch", found, fix)
        return self._say("scratch", found)

    def _folder(self) -> Finding:
        if self.late is None:
            fix = "give the context a folder on a file system that its workers see"
            return self._say("folder", "the driver does not see the files of a worker", fix)
        return self._say("folder", f"the driver sees a file of a worker after {self.late:.1f} s")

    def _time(self) -> Finding | None:
        """When the block ends, as its tasks see it: they stop before."""
        left = self.tasks[0].left
        if left is not None:
            return self._say(
                "wall time", f"the block ends in {clock(left)}; tasks stop before, and continue in another"
            )
        if self.remote:
            fix = "give the option walltime: tasks that know the end of their block stop in time"
            return self._open("wall time", "tasks do not know when their block ends", fix)
        return None


def _remedy(job: Ranks) -> str:
    """What helps a launcher that does not start its ranks."""
    if "run as root" in job.words:
        return f"in the option setup: export {' '.join(f'{one}=1' for one in AS_ROOT)}"
    if job.launcher == "srun":
        return "find the MPI type that your MPI library was built for, srun --mpi=list, and give it: srun --mpi=TYPE"
    return f"try it in a job: {job.command} hostname"


def _at_once(first: Surveyed, second: Surveyed) -> bool:
    """Whether two tasks ran at the same time on one host."""
    return first.host == second.host and first.began < second.ended and second.began < first.ended


def spans(numbers: Sequence[int]) -> str:
    """Numbers as spans: `0-3, 8`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in found)
