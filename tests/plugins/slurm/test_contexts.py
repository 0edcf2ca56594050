"""A context whose workers are jobs of a real SLURM, on nodes that are hosts of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from psiflow_toys.campaigns import moved_water
from psiflow_toys.cluster import Cluster
from psiflow_toys.paid import assert_paid_once, computations, counted
from psiflow_toys.waiting import wait_until

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.errors import PoolFailed


def pool(**options: Any) -> Spec:
    return psiflow.executor("slurm", **{"partition": "cpu", "poll": 0.5, **options})


def test_blocks_come_with_the_work_and_go_without_it(cluster: Cluster, tmp_path: Path) -> None:
    with psiflow.Context(pool(blocks=2, cores=2, idle=2), folder=tmp_path / "a folder") as context:
        first = context.label(moved_water(8, seed=1), counted(tmp_path, delay=2.0))
        wait_until(lambda: len(cluster.jobs()) == 2)
        assert_paid_once(first.result(), tmp_path, 8)
        wait_until(lambda: not cluster.jobs())
        context.label(moved_water(1, seed=2), counted(tmp_path, delay=0.0)).result()
        assert cluster.jobs()
    wait_until(lambda: not cluster.jobs())


def test_a_job_that_is_cancelled_in_mid_label_costs_no_label(cluster: Cluster, tmp_path: Path) -> None:
    with psiflow.Context(pool(), folder=tmp_path / "c") as context:
        labels = context.label(moved_water(3, seed=1), counted(tmp_path, delay=3.0))
        wait_until(lambda: computations(tmp_path, "begun"))
        cluster.cancel()
        assert_paid_once(labels.result(), tmp_path, 3, in_vain=1)
    wait_until(lambda: not cluster.jobs())


def test_a_controller_that_is_down_delays_blocks_and_ends_no_work(cluster: Cluster, tmp_path: Path) -> None:
    with psiflow.Context(pool(), folder=tmp_path / "c") as context:
        with cluster.controller_down():
            labels = context.label(moved_water(2, seed=1), counted(tmp_path, delay=4.0))
            wait_until(lambda: "Unable to contact slurm controller" in context.waiting())
        wait_until(lambda: computations(tmp_path, "begun"))
        with cluster.controller_down():
            wait_until(lambda: computations(tmp_path, "finished").total() == 2)
        assert_paid_once(labels.result(), tmp_path, 2)
    wait_until(lambda: not cluster.jobs())


def test_nodes_that_see_no_folder_of_the_driver_get_its_files(cluster: Cluster) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # each node has a /tmp of its own
        with psiflow.Context(pool(cores=2, shared=False), folder=Path(place)) as context:
            data = context.label(moved_water(6, seed=1), psiflow.reference("toy")).result()
            model = context.train(psiflow.potential("toy", basis=8), data, members=1).result()
            assert model.predict([data[0]])[0].energy == pytest.approx(data.energies[0], abs=1.0)
        assert len(list(Path(place).rglob("labels/*/*.json"))) == 8, "six and two atoms"
    wait_until(lambda: not cluster.jobs())


def test_a_full_cluster_is_waited_for_and_its_reason_is_shown(cluster: Cluster, tmp_path: Path) -> None:
    cluster.ask("sbatch", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1000")
    wait_until(lambda: list(cluster.jobs().values()) == ["RUNNING"])
    with psiflow.Context(pool(), folder=tmp_path / "c") as context:
        labels = context.label(moved_water(1, seed=1), counted(tmp_path, delay=0.0))
        wait_until(lambda: "PENDING (Resources)" in context.waiting())
        assert not computations(tmp_path, "begun")
        cluster.ask("scancel", next(job for job, state in cluster.jobs().items() if state == "RUNNING"))
        assert_paid_once(labels.result(), tmp_path, 1)


def test_an_unknown_partition_is_told_in_slurm_s_words_after_one_submission(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "bin" / "sbatch"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\necho once >>"{tmp_path}/calls"\nexec /usr/bin/sbatch "$@"\n')
    shim.chmod(0o700)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    with (
        psiflow.Context(pool(partition="gpuu"), folder=tmp_path / "c") as context,
        pytest.raises(PoolFailed, match=r"invalid partition specified: gpuu.*Partitions: cpu"),
    ):
        context.label(moved_water(3, seed=1), counted(tmp_path, delay=0.0)).result()
    assert (tmp_path / "calls").read_text() == "once\n"


SCRIPT = """
import sys
import tempfile
from pathlib import Path
import psiflow_core as psiflow
from psiflow_toys.campaigns import moved_water
from psiflow_toys.paid import counted

def main(folder):
    pool = psiflow.executor("slurm", partition="cpu", poll=0.5, blocks=3, cores=2, workers=1)
    with psiflow.Context(pool, folder=folder / "c") as context:
        context.label(moved_water(4, seed=1), counted(folder, delay=3.0)).result()

main(Path(sys.argv[1]))
"""


def test_a_killed_driver_leaves_no_job_to_the_next_one_and_loses_no_label(cluster: Cluster, tmp_path: Path) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: sorted(cluster.jobs().values()) == ["PENDING", "RUNNING", "RUNNING"], during=driver)
    wait_until(lambda: len(computations(tmp_path, "begun")) == 2, during=driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not cluster.jobs())
    assert set(computations(tmp_path, "finished").values()) == {1}
    assert len(computations(tmp_path, "finished")) == 4
