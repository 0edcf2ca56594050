"""MPI ranks on a worker, by each launcher that is there; their program is `psiflow_core.processes.hello`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from psiflow_core.identity import Typed
from psiflow_core.processes import ranks
from psiflow_core.texts import one_line

PATIENCE = 60.0
"""How long ranks may take to start. [s]"""

LAUNCHERS = {
    "mpirun": ("mpirun -n {ranks}",),
    "srun": ("srun --exact -n {ranks} -c 1", "srun --mpi=pmix --exact -n {ranks} -c 1"),
}
"""How ranks are started inside a block: the first way that works counts. Some sites have no default for srun."""

MOST = 4
"""Ranks that are tried on one node."""

SAID = 300
"""Characters kept of a launcher's error output: it begins with the reason."""


class Ranks(Typed, strict=True):
    """The MPI ranks of one launcher."""

    launcher: str
    command: str
    asked: int
    worlds: list[int]
    """The size of its world, as each rank sees it; 0 if no MPI library was found."""
    cores: list[list[int]]
    """The cores that each rank may use."""
    hosts: list[str]
    """The host of each rank."""
    words: str = ""
    """The launcher's own words, if ranks are missing."""

    @property
    def sound(self) -> bool:
        """Whether all ranks have started, and none is alone, as far as an MPI library can tell."""
        return len(self.worlds) == self.asked and (self.asked == 1 or 1 not in self.worlds)


def every_launcher(cores: int, nodes: int) -> list[Ranks]:
    """Ranks by each launcher that is there; `srun` only where a job of SLURM runs.

    Args:
        cores: cores of the task.
        nodes: nodes of the task. On several nodes, as many ranks are started as it has cores.
    """
    asked = cores if nodes > 1 else max(2, min(cores, MOST))
    there = [name for name in LAUNCHERS if shutil.which(name)]
    usable = [name for name in there if name != "srun" or ("SLURM_JOB_ID" in os.environ and cores > 1)]
    return [_first_that_works(name, asked, nodes) for name in usable]


def _first_that_works(launcher: str, asked: int, nodes: int) -> Ranks:
    """The ranks of the first way that works, or else of the first way."""
    tried = []
    for way in LAUNCHERS[launcher]:
        tried.append(_started(launcher, way.format(ranks=asked), asked, nodes))
        if tried[-1].sound:
            return tried[-1]
    return tried[0]


def _started(launcher: str, command: str, asked: int, nodes: int) -> Ranks:
    """On one node `mpirun` must not see the scheduler, which it would ask for the places of ranks."""
    hiding = ranks.hiding(os.environ) if launcher == "mpirun" and nodes == 1 else []
    words = [*hiding, *command.split(), sys.executable, "-m", "psiflow_core.processes.hello"]
    told, said = _run(words)
    found = list(_answers(told))
    return Ranks(
        launcher=launcher,
        command=command,
        asked=asked,
        worlds=[one["size"] for one in found],
        cores=[one["cores"] for one in found],
        hosts=[one["host"] for one in found],
        words="" if len(found) == asked else one_line(re.sub("-{9,}", "", said), SAID),
    )


def _answers(told: str) -> Iterator[dict[str, Any]]:
    """What each rank has told. A launcher may join the lines of two ranks, and put words of its own between them."""
    decoder = json.JSONDecoder()
    for begin in re.finditer(r'\{"rank"', told):
        with suppress(json.JSONDecodeError):  # a line that another one interrupts counts as a missing rank
            yield decoder.raw_decode(told, begin.start())[0]


def _run(words: list[str]) -> tuple[str, str]:
    """Output and errors of a command."""
    environment = {**os.environ, **ranks.SETTINGS}
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return "", str(error)
    return done.stdout, done.stderr
