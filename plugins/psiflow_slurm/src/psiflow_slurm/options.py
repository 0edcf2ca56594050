"""The options of the executor."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Self

from pydantic import AfterValidator, NonNegativeInt, PositiveFloat, model_validator

from psiflow_core.execution.blocks import Batch

ELSEWHERE = {
    **{"-p": "partition", "-A": "account", "-q": "qos", "-C": "constraint", "-t": "walltime", "-N": "nodes"},
    **{name: name for name in ("partition", "account", "qos", "constraint", "reservation", "exclusive", "nodes")},
    **{"time": "walltime", "mem": "memory", "gres": "gpus", "gpus": "gpus", "gpus-per-node": "gpus", "-G": "gpus"},
    **{"ntasks": "cores", "-n": "cores", "ntasks-per-node": "cores", "cpus-per-task": "cores", "-c": "cores"},
    **{"signal": "notice", "container": "container"},
}
"""Options of `sbatch` that options of psiflow replace."""

OURS = {
    *("job-name", "-J", "output", "-o", "error", "-e", "input", "-i", "chdir", "-D", "array", "-a", "wrap", "wait"),
    *("-W", "parsable", "test-only", "requeue", "no-requeue", "export", "export-file", "open-mode"),
}
"""Options of `sbatch` that psiflow needs for itself."""


def _word(given: str) -> str:
    """A value that a job script can contain as it is."""
    if not re.fullmatch(r"[^\s\"'\\#`$]+", given) or not given.isprintable():
        raise ValueError(f"{given!r} has a space or a quote in it, or is empty: sbatch would not read it as one word")
    return given


Word = Annotated[str, AfterValidator(_word)]


class SlurmOptions(Batch):
    """What a job asks for, in the words of `sbatch`."""

    partition: Word | None = None
    """The partition of its jobs, or several, separated by commas; None for the cluster's default."""
    account: Word | None = None
    """The account that pays; None for the user's default."""
    qos: Word | None = None
    """The quality of service; None for the user's default."""
    constraint: Word | None = None
    """Features that its nodes must have: `skylake`, `ib&ssd`."""
    reservation: Word | None = None
    """The reservation in which its jobs run."""
    exclusive: bool = False
    """Whether its jobs share no node with other jobs."""
    gpu_type: Word | None = None
    """The type of its GPUs, as `sinfo -o %G` shows it: `a100`."""
    notice: NonNegativeInt = 120
    """A job is warned so long before its time ends, by a signal that makes its workers finish. At most a tenth of
    `walltime`. [s]"""
    launcher: str = (
        "srun --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={cores} --overlap --mpi=none "
        "--kill-on-bad-exit=0 --wait=0 --export=ALL"
    )
    """The words that start the workers on every node of a job, if it has several nodes; `{nodes}` and `{cores}` are
    replaced."""
    poll: PositiveFloat = 15.0
    """The shortest time between two looks into the queue. [s]"""

    @model_validator(mode="after")
    def _launchable(self) -> Self:
        try:
            words = shlex.split(self.launcher.format(nodes=1, cores=1))
        except (KeyError, IndexError, ValueError) as error:
            told = f"launcher={self.launcher!r} cannot be read ({error})"
            raise ValueError(f"{told}; allowed in braces: nodes, cores") from None
        if not words:
            raise ValueError("launcher is empty; leave it out for srun")
        if self.gpu_type and not self.gpus:
            raise ValueError(f"gpu_type='{self.gpu_type}' needs gpus, their number on a node")
        return self

    @model_validator(mode="after")
    def _directed(self) -> Self:
        for line in self.directives:
            flag = flag_of(line)
            if flag in ELSEWHERE:
                raise ValueError(f"directives: '{line}' is the option {ELSEWHERE[flag]} of this executor; use that one")
            if flag in OURS:
                raise ValueError(f"directives: '{line}' belongs to psiflow; leave it out")
        return self


def flag_of(line: str) -> str:
    """The option of `sbatch` in a directive: `mail-type` of `#SBATCH --mail-type=END`.

    Raises:
        ValueError: there is none.
    """
    words = line.removeprefix("#SBATCH").split()
    found = re.fullmatch(r"(-\w)(?!-).*|--([\w-]+)(=.*)?", words[0]) if words else None
    if found is None or (line.startswith("#") and not line.startswith("#SBATCH ")):
        raise ValueError(f"directives: '{line}' is no option of sbatch; write --name=value")
    return found[1] or found[2]
