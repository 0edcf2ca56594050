"""Blocks that end before their work does, and a node that is bad: no label is lost, and none is paid for twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from psiflow_toys.campaigns import moved_water
from psiflow_toys.cluster import Cluster
from psiflow_toys.paid import assert_paid_once, counted
from psiflow_toys.waiting import wait_until

import psiflow_core as psiflow
from psiflow_core.components import Spec

NONE = psiflow.Limits(force=1e9, distance=1e-9, temperature_quantile=1e-300)
"""Nothing stops a walker."""


def pool(**options: Any) -> Spec:
    return psiflow.executor("slurm", **{"partition": "cpu", "poll": 0.5, **options})


def blocks(folder: Path) -> int:
    """How many blocks the pools of a context have had."""
    return len(list(folder.glob("pools/*/blocks/*.sh")))


def slept(folder: Path) -> float:
    """How long the trainings in a folder have taken without their interruptions. [s]"""
    return sum(float(file.read_text() or 0.0) for file in folder.rglob("slept"))


def test_labels_begin_only_where_they_can_end(cluster: Cluster, tmp_path: Path) -> None:
    with psiflow.Context(pool(walltime=30), folder=tmp_path / "c") as context:
        labels = context.label(moved_water(5, seed=1), counted(tmp_path, delay=5.0))
        assert_paid_once(labels.result(), tmp_path, 5)
    assert blocks(tmp_path / "c") > 1


def test_a_training_goes_on_in_the_next_block_after_a_notice(cluster: Cluster, tmp_path: Path) -> None:
    with psiflow.Context(label="local", train=pool(), folder=tmp_path / "c") as context:
        data = context.label(moved_water(6, seed=1), psiflow.reference("toy")).result()
        training = context.train(psiflow.potential("toy", basis=8, delay=10.0), data, members=1)
        wait_until(lambda: slept(tmp_path))
        (job,) = cluster.jobs()
        cluster.ask("scancel", "--batch", "--signal=TERM", job)
        assert len(training.result().members) == 1
    assert blocks(tmp_path / "c") == 2
    assert slept(tmp_path) == pytest.approx(10.0, abs=0.2)


def test_a_trajectory_outlasts_the_wall_time_of_its_block(cluster: Cluster, tmp_path: Path) -> None:
    """Its number of steps takes this machine half a minute, which no block has after its start."""
    sampler = psiflow.sampler("ase", temperature=300.0)
    with psiflow.Context("threads", folder=tmp_path / "model") as here:
        data = here.label(moved_water(6, seed=1), psiflow.reference("toy")).result()
        model = here.train(psiflow.potential("toy", basis=8), data, members=1).result()
        begun = time.monotonic()
        here.sample(model, sampler, data[:1], steps=5000, check_every=100, limits=NONE).result()
        steps = 100 * int(50 * 30.0 / (time.monotonic() - begun))
    with psiflow.Context(pool(walltime=28), folder=tmp_path / "c") as context:
        (run,) = context.sample(model, sampler, data[:1], steps=steps, check_every=100, limits=NONE).result()
    assert run.segment.stopped is None
    assert run.segment.steps == run.walker.step == steps
    assert blocks(tmp_path / "c") > 1


def test_a_node_without_the_engine_is_excluded_and_its_labels_are_computed_elsewhere(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with psiflow.Context(pool(partition="mixed", blocks=2), folder=tmp_path / "c") as context:
        assert_paid_once(context.label(moved_water(8, seed=1), counted(tmp_path, 0.5)).result(), tmp_path, 8)
    assert "n3" in caplog.text
