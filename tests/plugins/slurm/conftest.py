from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psiflow_slurm._engine import SlurmJobs
from psiflow_slurm.executor import Slurm
from psiflow_toys.cluster import Cluster, missing, private_slurm

ROOT = Path(__file__).parents[3]

TOO_LONG = "too-long"
"""A job that SLURM ends after a minute; it begins with the first test."""


@pytest.fixture(scope="package")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The SLURM of all tests."""
    if reason := missing():
        pytest.skip(reason)
    with private_slurm(ROOT, tmp_path_factory.getbasetemp()) as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(started.folder / "slurm.conf"))
        started.ask("sbatch", "--partition=short", f"--job-name={TOO_LONG}", "--output=/dev/null", "--wrap=sleep 1000")
        yield started


@pytest.fixture
def too_long(cluster: Cluster) -> str:
    """The id of a job that exceeds its time limit."""
    return cluster.ask("squeue", "--noheader", "--states=all", f"--name={TOO_LONG}", "--format=%i").strip()


@pytest.fixture
def cluster(_running: Cluster) -> Iterator[Cluster]:
    """A SLURM without jobs."""
    yield _running
    _running.cancel()


@pytest.fixture
def slurm(cluster: Cluster) -> SlurmJobs:
    """The jobs of an executor with its default options."""
    return jobs()


def jobs(**options: object) -> SlurmJobs:
    return SlurmJobs(Slurm.parse(options))
