"""Ranks start on the worker's node, as many as the pool has cores, whatever a scheduler has granted."""

from __future__ import annotations

import socket

import pytest
from psiflow_cp2k import _program
from psiflow_cp2k.reference import CP2K

from psiflow_core.components import Resources

GRANTED = {
    "SLURM_JOB_ID": "7", "SLURM_JOBID": "7", "SLURM_NNODES": "1", "SLURM_NTASKS": "1", "SLURM_TASKS_PER_NODE": "1",
    "SLURM_STEP_ID": "0",
}  # fmt: skip
"""One task on this node, as a pool's block has: Open MPI has one slot for it."""


@pytest.fixture
def one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GRANTED.items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_NODELIST", "SLURM_JOB_NODELIST"):
        monkeypatch.setenv(name, socket.gethostname())


@pytest.mark.parametrize("before", [None, "export LOADED=yes"])
@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.usefixtures("one_task")
def test_ranks_start_where_a_scheduler_has_granted_one_task(cores, before, hydrogen, label) -> None:
    """One rank alone fails without this too: within a step it looks for the scheduler's process manager."""
    assert label(hydrogen, Resources(cores=cores), before=before).energy == pytest.approx(-30.4, abs=1.0)


@pytest.mark.usefixtures("one_task")
def test_a_launch_of_the_users_own_sees_the_scheduler() -> None:
    own = CP2K(launch="srun --overlap -n {ranks}")
    assert _program.words(own, 4)[:5] == ["srun", "--overlap", "-n", "4", "cp2k.psmp"]
    assert _program.words(own, 1)[0] == "env"
    assert _program.words(CP2K(), 4)[0] == "env"


def test_without_a_scheduler_nothing_is_hidden(monkeypatch) -> None:
    monkeypatch.setattr("os.environ", {"PATH": "/bin", "OMPI_MCA_btl": "self", "OMPI_ALLOW_RUN_AS_ROOT": "1"})
    assert _program.words(CP2K(), 2)[:4] == ["mpirun", "-n", "2", "cp2k.psmp"]
