"""CP2K's command line and environment: it runs on the worker's own node, with the pool's cores."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from psiflow_core.processes.programs import Allowance, Program
from psiflow_core.processes.ranks import SETTINGS, hiding
from psiflow_cp2k.options import CP2KOptions

HERE = "mpirun -n {ranks}"
"""Starts ranks on this node, with any MPI."""


def run(options: CP2KOptions, folder: Path, cores: int, allowance: Allowance) -> int:
    """Run `label.inp` in a folder. The output goes to `label.out`, other messages to `label.err`.

    Returns:
        The exit code. It is 0 for many failures, too: read the output.

    Raises:
        ReferenceFailed: "wall time", "memory", "hung", or "engine" if CP2K cannot be started.
    """
    program = Program(
        name="CP2K",
        words=words(options, cores),
        environment=_environment(options),
        remedy="set command or before",
        patience=options.patience,
    )
    return program.run(folder, folder / "label.err", allowance)


def words(options: CP2KOptions, cores: int) -> list[str]:
    """The command line: `before` in a shell if given, then `launch` if there are several ranks, then `command`."""
    ranks = max(1, cores // options.threads)
    template = HERE if options.launch is None else options.launch
    launch = shlex.split(template.format(ranks=ranks, threads=options.threads)) if ranks > 1 else []
    command = [*launch, *shlex.split(options.command), "-i", "label.inp", "-o", "label.out"]
    if ranks == 1 or options.launch is None:
        command = [*hiding(os.environ), *command]
    return ["bash", "-c", f"{options.before}\nexec {shlex.join(command)}"] if options.before else command


def _environment(options: CP2KOptions) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(options.threads), "OPENBLAS_NUM_THREADS": "1"}
    data = {"CP2K_DATA_DIR": options.data} if options.data else {}
    return {**threads, **SETTINGS, **data}
