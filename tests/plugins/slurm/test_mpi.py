"""Ranks of CP2K in jobs of SLURM: started by `mpirun` and by `srun`, on one node and on two."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from psiflow_toys.cluster import Cluster

import psiflow_core as psiflow
from psiflow_core.errors import TooManyFailures

pytestmark = pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="there is no cp2k.psmp on PATH")

CHEAP = {"basis": "SZV-MOLOPT-GTH", "cutoff": 150.0, "rel_cutoff": 30.0, "vacuum": 2.5}
ON_TWO_NODES = "srun --exact --mpi=pmix -n {ranks}", {"cores": 1, "nodes": 2, "nodes_per_task": 2}


def labelled(launch: str, options: dict[str, Any], first: str, folder: Path) -> Atoms:
    """A molecule that ranks of CP2K have labelled, each after a line of shell."""
    rank = folder / "rank"
    rank.write_text(f'#!/bin/sh\n{first}\nexec "$@"\n')
    rank.chmod(0o700)
    reference = psiflow.reference("cp2k", launch=f"{launch} {rank}", **CHEAP)
    setup = ["export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1"]
    pool = psiflow.executor("slurm", partition="cpu", poll=0.5, setup=setup, **options)
    with psiflow.Context(pool, folder=folder / "c") as context:
        (found,) = context.label([Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])], reference).result()
    return found


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("launch", "options", "hosts"),
    [("mpirun -n {ranks}", {"cores": 2, "cores_per_worker": 2}, ["n1", "n1"]), (*ON_TWO_NODES, ["n1", "n2"])],
)
def test_a_label_has_a_rank_on_each_core_of_its_task(
    launch: str, options: dict[str, Any], hosts: list[str], tmp_path: Path
) -> None:
    found = labelled(launch, options, f'hostname >>"{tmp_path}/hosts"', tmp_path)
    assert found.get_potential_energy() == pytest.approx(-30.4, abs=1.0)
    ranks = (tmp_path / "hosts").read_text().split()
    assert Counter(ranks) == Counter(hosts * (len(ranks) // 2))  # CP2K may run more than once for a label


def test_a_rank_that_does_not_start_ends_the_others(cluster: Cluster, tmp_path: Path) -> None:
    """They would wait for it as long as the job lasts."""
    with pytest.raises(TooManyFailures, match="CP2K"):
        labelled(*ON_TWO_NODES, '[ "$(hostname)" = n1 ] || exit 127', tmp_path)
