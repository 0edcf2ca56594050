"""The commands of LSF: bsub, bjobs and bkill."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from psiflow_core.execution.blocks import Answer, BatchSystem, Block, BlockState, SchedulerUnavailable, set_up
from psiflow_lsf import _jobs
from psiflow_lsf.options import LSFOptions

LATER = re.compile(
    r"cannot connect|communication|time ?out|timed out|try later|please wait|not responding|lim is down|is down"
    r"|in an lsf library call|threshold reached|limit (is |has been )?reached|retrying|too many|busy|licen[sc]e",
    re.IGNORECASE,
)
"""Words of a failure that passes: a server that is down, a queue that is full."""

FINAL = re.compile(r"too many processors|no such queue|bad |cannot use the queue", re.IGNORECASE)
"""Words of a failure for good, also where it has words of one that passes."""

UNKNOWN = re.compile(r"Job <(\d+)>.*(is not found|No matching job found)", re.IGNORECASE)
NONE = re.compile(r"No (unfinished|matching) job found|is not found", re.IGNORECASE)
ENDED = re.compile(r"already finished|is not found|No matching job|is being terminated|has been killed", re.IGNORECASE)

ON_EVERY_HOST = 'exec blaunch -no-shell -z "$(printf "%s\\n" $LSB_HOSTS | sort -u | tr "\\n" " ")" "$@"'
"""Shell: a command on each host of the job, once."""


class Queue(BatchSystem):
    """Jobs of LSF."""

    reads_script: ClassVar[bool] = True

    options: LSFOptions

    def __init__(self, options: LSFOptions) -> None:
        super().__init__(options)
        self.options = options

    def head(self, block: Block) -> Sequence[str]:
        given = self.options
        span = "hosts=1" if given.nodes == 1 else f"ptile={given.cores}"
        lines = [f"-J {block.name}", f"-n {given.nodes * given.cores}", f'-R "span[{span}]"', "-rn"]
        lines += [f'-R "rusage[mem={self._memory()}MB]"'] if given.memory else []
        lines += [f'-R "{given.requirement}"'] if given.requirement else []
        lines += [f'-gpu "num={given.gpus}:mode={given.gpu_mode}"'] if given.gpus else []
        lines += [f"-W {hours_and_minutes(given.walltime)}"] if given.walltime else []
        named = {"-q": given.queue, "-P": given.project, "-G": given.user_group, "-app": given.application}
        lines += [f"{flag} {value}" for flag, value in named.items() if value]
        return [f"#BSUB {line}" for line in lines]

    def directive(self, line: str) -> str:
        return line if line.startswith("#") else f"#BSUB {line}"

    def submission(self, script: Path, block: Block) -> Sequence[str]:
        return ["bsub", "-o", str(self.output(block))]

    def job(self, answer: Answer) -> str:
        found = re.search(r"Job <(\d+)> is submitted", answer.output)
        return found[1] if found else ""

    def refused(self, answer: Answer) -> bool:
        words = f"{answer.errors} {answer.output}"
        return bool(FINAL.search(words)) or not LATER.search(words)

    def launch(self, command: Sequence[str]) -> Sequence[str]:
        """By blaunch, once on each host. The lines of set-up run on every host."""
        body = "\n".join([*set_up(self.options.setup), f"exec {shlex.join(command)}"])
        return ["/bin/bash", "-c", ON_EVERY_HOST, "blaunch", "/bin/bash", "-c", body]

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        if not ids:
            return {}
        answer = self.ask(["bjobs", "-json", "-o", _jobs.FIELDS, *ids])
        found = {job: _jobs.state(fields) for job, fields in _jobs.read(answer.output).items()}
        gone = {job for job, _ in UNKNOWN.findall(f"{answer.errors} {answer.output}")}
        if answer.code != 0 and not set(ids) <= {*found, *gone}:
            raise SchedulerUnavailable(answer.words)
        return {job: found.get(job, BlockState("ended", "LSF no longer knows the job")) for job in ids}

    def cancel(self, ids: Collection[str]) -> None:
        if not ids:
            return
        answer = self.ask(["bkill", *ids])
        failures = [line for line in answer.errors.splitlines() if line.strip() and not ENDED.search(line)]
        if answer.code != 0 and failures:
            raise SchedulerUnavailable(answer.words)

    def find(self, tag: str) -> Mapping[str, str]:
        answer = self.ask(["bjobs", "-json", "-o", _jobs.FIELDS, "-J", f"{tag}*"])
        if answer.code != 0 and not NONE.search(f"{answer.errors} {answer.output}"):
            raise SchedulerUnavailable(answer.words)
        jobs = _jobs.read(answer.output)
        names = {job: fields.get("JOB_NAME", "") for job, fields in jobs.items() if not _jobs.has_ended(fields)}
        return {name: job for job, name in names.items() if name.startswith(tag)}

    def _memory(self) -> int:
        """[MiB], of a host or of a slot."""
        given = self.options
        share = given.cores if given.memory_counts == "slot" else 1
        return round(1024 * (given.memory or 0.0) / share)


def hours_and_minutes(time: float) -> str:
    """A time as HH:MM; of a fraction of a minute the next one. [s]"""
    minutes = int(-(-time // 60))
    return f"{minutes // 60}:{minutes % 60:02d}"
