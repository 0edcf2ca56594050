"""A private SLURM for tests: `tests/slurm/start`, from Python."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psiflow_toys
from psiflow_toys.waiting import wait_until

SCRIPTS = Path(__file__).parents[3] / "slurm"
PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge", "ip": "iproute2"}
TAKING = ("idle", "mix", "alloc")
"""States of a node that answers."""


def missing() -> str:
    """Why there can be no private SLURM on this machine; empty if there can."""
    if os.geteuid() != 0:
        return "a private SLURM needs root: its nodes have networks of their own"
    lacking = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    return f"a private SLURM needs {', '.join(lacking)}; apt-get install them" if lacking else ""


class Cluster:
    """A SLURM that runs. Its nodes are hosts of their own; on n3 the components of these tests cannot be imported.

    Attributes:
        folder: its configuration, state and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def address(self) -> str:
        """The address of this host for the nodes."""
        return f"10.213.{(self.folder / 'network').read_text().strip()}.1"

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def jobs(self) -> dict[str, str]:
        """The states of the jobs that have not ended, by id, except for those in partition `short`."""
        lines = self.ask("squeue", "--noheader", "--partition=cpu,gpu,mixed,urgent", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def cancel(self) -> None:
        """Cancel these jobs, and wait until none is left."""
        if jobs := self.jobs():
            self.ask("scancel", *jobs)
        wait_until(lambda: not self.jobs())

    def power_off(self, node: str) -> None:
        """Kill every process of a node at once."""
        os.kill(int((self.folder / f"{node}.pid").read_text()), signal.SIGKILL)

    def power_on(self, node: str) -> None:
        """Start a node, and wait until it takes jobs."""
        subprocess.run([SCRIPTS / "node", self.folder, node], check=True, timeout=60)
        wait_until(lambda: self.ask("sinfo", "--noheader", "--nodes", node, "--format=%t").split()[0] in TAKING)

    @contextmanager
    def controller_down(self) -> Iterator[None]:
        """The controller is killed; afterwards another one takes over."""
        pid = int((self.folder / "slurmctld.pid").read_text())
        self.ask("scontrol", "write", "config", str(self.folder / "written"))  # a moment in which its state is saved
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not _lives(pid))
        try:
            yield
        finally:
            subprocess.run(["slurmctld"], check=True, timeout=60)
            wait_until(self._answers)

    @contextmanager
    def controller_stopped(self) -> Iterator[None]:
        """The controller takes requests, and does not answer them until afterwards."""
        pid = int((self.folder / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _answers(self) -> bool:
        return subprocess.run(["squeue"], capture_output=True, timeout=60).returncode == 0


@contextmanager
def private_slurm(*shared: Path) -> Iterator[Cluster]:
    """Start a private SLURM, and end it; it also ends with this process.

    Args:
        shared: folders that its nodes see; those outside /tmp they see anyway.

    Raises:
        subprocess.CalledProcessError: it does not start.
    """
    seen = [*shared, Path(sys.prefix), *(Path(one) for one in sys.path if Path(one).is_dir())]
    folders = os.pathsep.join(dict.fromkeys(str(one.resolve()) for one in seen))
    folder = Path(tempfile.mkdtemp(prefix="psiflow-slurm-"))
    broken = Path(psiflow_toys.__file__).parent
    environment = {**os.environ, "PSIFLOW_SHARED": folders, "PSIFLOW_OWNER": str(os.getpid())}
    try:
        subprocess.run([SCRIPTS / "start", folder, broken], check=True, timeout=120, env=environment)
        yield Cluster(folder)
    finally:
        subprocess.run([SCRIPTS / "stop", folder], check=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
