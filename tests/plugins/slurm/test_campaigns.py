"""Online learning on a real SLURM: labels in one partition, trainings and walkers in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psiflow_toys.campaigns import learning, run
from psiflow_toys.cluster import Cluster
from psiflow_toys.waiting import wait_until

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.learning.driver.request import read_campaign


def pool(**options: Any) -> Spec:
    return psiflow.executor("slurm", **{"partition": "cpu", "poll": 0.5, **options})


def test_labels_are_computed_in_one_partition_and_models_trained_in_another(cluster: Cluster, tmp_path: Path) -> None:
    """Blocks for trainings are so short that one of them reaches its wall time in mid-training."""
    folder = tmp_path / "a campaign"
    asked = learning(
        labels=6,
        potential=psiflow.potential("toy", basis=8, delay=20.0),
        reference=psiflow.reference("pyscf", functional="lda,vwn", basis="sto-3g"),
        training=psiflow.Training(growth=2.0),
    )
    processors = pool(cores=2, cores_per_worker=2)
    graphics = pool(partition="gpu", gpus=1, device="cpu", cores=2, walltime=40)
    with psiflow.Context(label=processors, train=graphics, sample=graphics) as context:
        result = run(folder, context, asked)
    assert len(result.dataset) == 6
    assert result.potential is not None
    state = read_campaign(folder).state
    assert state.interruptions["train"]
    assert not state.failures, "the end of a block is no failure"
    slept = [float(file.read_text()) for file in folder.rglob("slept") if file.read_text()]
    assert all(seconds < 21.0 for seconds in slept), "and costs no training"
    wait_until(lambda: not cluster.jobs())


def test_a_campaign_that_is_checked_on_a_bad_node_first_goes_on_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    with psiflow.Context("local", label=pool(partition="mixed")) as context:
        result = run(tmp_path / "c", context, learning(labels=6))
    assert len(result.dataset) == 6


def test_a_component_that_no_node_has_is_told_with_the_node(cluster: Cluster, tmp_path: Path) -> None:
    context = psiflow.Context("local", label=pool(partition="broken"))
    with context, pytest.raises(psiflow.PsiflowError, match=r"toy.*on host n3.*no other host can be asked"):
        run(tmp_path / "c", context, learning(labels=6))
