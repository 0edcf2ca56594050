"""`psiflow doctor` and `psiflow rehearse` on a real SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ase.build import molecule
from psiflow_toys.cluster import Cluster
from psiflow_toys.waiting import wait_until
from typer.testing import CliRunner

from psiflow_core.cli import app
from psiflow_core.cli.sights import AS_ROOT

POOLS = {
    "train": {"name": "slurm", "partition": "gpu", "poll": 1},
    "label": {
        "name": "slurm",
        "partition": "cpu",
        "cores": 2,
        "cores_per_worker": 2,
        "walltime": "00:10:00",
        "poll": 1,
    },
}


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in AS_ROOT:
        monkeypatch.setenv(variable, "1")


def written(file: Path, content: dict[str, object]) -> str:
    file.write_text(yaml.safe_dump(content))
    return str(file)


def test_a_job_on_each_pool_shows_what_its_workers_see(cluster: Cluster, tmp_path: Path) -> None:
    context = {"folder": "a folder & more", "everything": "threads", **POOLS}
    file = written(tmp_path / "cluster.yaml", context)
    result = CliRunner().invoke(app, ["doctor", "--context", file, "--reference", "ase", "--potential", "toy"])
    assert result.exit_code == 0, result.output
    for pool, host in (("train", "n4"), ("label", "n1")):
        assert f"✔ {pool} workers: the block started after" in result.output
        assert f"later, on {host}" in result.output
    assert "✔ label MPI by mpirun: 2 ranks in one world" in result.output
    assert "label MPI by srun: " in result.output, "it works where the site has an MPI type for it"
    assert "✔ label folder: the driver sees a file of a worker" in result.output
    assert "✔ label wall time: the block ends in 0:0" in result.output, "of the ten minutes that it asks for"
    assert "✔ reference ase: works on a worker" in result.output
    wait_until(lambda: not cluster.jobs())
    assert not list((tmp_path / "a folder & more").iterdir())


def test_ranks_of_a_task_on_two_nodes_find_each_other(cluster: Cluster) -> None:
    options = {"partition": "cpu", "nodes": 2, "nodes_per_task": 2, "cores": 2, "poll": 1, "walltime": "00:10:00"}
    words = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    result = CliRunner().invoke(app, ["doctor", "--executor", "slurm", *words, "--reference", "ase"])
    assert result.exit_code == 0, result.output
    assert "✔ all MPI by mpirun: 4 ranks in one world, on n1, n2" in result.output


def test_a_wrong_partition_is_told_in_the_words_of_sbatch(cluster: Cluster, tmp_path: Path) -> None:
    label = {"name": "slurm", "partition": "cpuu"}
    file = written(tmp_path / "cluster.yaml", {"folder": "work", "everything": "threads", "label": label})
    result = CliRunner().invoke(app, ["doctor", "--context", file, "--reference", "ase"])
    assert result.exit_code == 1
    assert "✘ label workers: " in result.output
    assert "invalid partition specified: cpuu" in result.output


def test_a_campaign_is_rehearsed_on_its_own_pools(cluster: Cluster, tmp_path: Path) -> None:
    molecule("H2O").write(tmp_path / "water.xyz")
    campaign = {
        "potential": "toy",
        "sampler": {"name": "ase", "ensemble": "nve", "temperature": 100.0},
        "reference": "toy",
        "walkers": 2,
        "committee": 2,
        "budget": {"labels": 1000},
        "walking": {"segment": {"steps": 20}},
        "start": "water.xyz",
        "folder": "campaign",
        "context": {"everything": {"name": "local", "workers": 1}, **POOLS},
    }
    file = written(tmp_path / "campaign.yaml", campaign)
    result = CliRunner().invoke(app, ["rehearse", file, "--calculator", "emt", "--labels", "8", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "✔ train: " in result.output
    assert ", on n4" in result.output
    assert ", on n1" in result.output
    wait_until(lambda: not cluster.jobs())
