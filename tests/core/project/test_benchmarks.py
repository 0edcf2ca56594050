"""The benchmarks run: each in its smallest size, or as far as it goes without what is not here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from psiflow_toys.reference import ToyReference

from psiflow_core.components import LabelTask
from psiflow_core.structures import with_label

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

SMALLEST: dict[str, str] = {
    "start_up": "--rounds 1",
    "large_datasets": "--frames 20 --atoms 6 --rounds 1",
    "task_overhead": "--tasks 3 --rounds 1",
    "durability": "--labels 3 --rounds 1",
    "scale": "--workers 1 --tasks 3 --rounds 1 --queues 2x10 --campaigns 2x10 --carried 1",
    "growth": "--turns 2 --sizes 2x10 4x20 --events 20 40",
    "openmm_step": "--rounds 1 --steps 1",
    "batched_walkers": "--rounds 1 --steps 1 --small",
    "labels_of_others": "data.xyz data.xyz --steps 1 --channels 4",
    "pyscf_against_orca": ". 1 --grid-level 0",
    "cp2k_by_hand": "--cutoff 60 --vacuum 2 --steps 2 --repeats 1",
}
"""By benchmark: what it is asked for."""

TOO_MUCH: dict[str, str] = {
    "architectures": "needs NequIP, which has an environment of its own",
    "compiled": "compiles for minutes",
    "environments": "two campaigns with MACE, one of them in another environment",
    "mace_against_run_train": "two trainings by programs of their own, each of which loads torch",
    "nequip_against_nequip_train": "needs NequIP, which has an environment of its own",
    "schedules": "two campaigns with MACE: minutes",
    "slurm_over_local": "needs a SLURM of its own, and root",
}
"""By benchmark: why it is asked for no more than its options."""


def run(folder: Path, name: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    (folder / "tmp").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with labelled structures in it: crystals, and what the comparison with ORCA looks for."""
    crystals: list[Atoms] = [bulk("Cu", cubic=True) for _ in range(3)]
    for number, atoms in enumerate(crystals):
        atoms.rattle(0.02, seed=number)
    files = {
        "data.xyz": crystals,
        "test_MD.xyz": [molecule("H2O")],
        "isolated_atoms.xyz": [Atoms(symbol) for symbol in "HCO"],
    }
    for name, structures in files.items():
        labels = [ToyReference().label(atoms, LabelTask(tmp_path)) for atoms in structures]
        labelled = [with_label(atoms, label) for atoms, label in zip(structures, labels, strict=True)]
        ase.io.write(tmp_path / name, labelled)
    return tmp_path


def test_no_benchmark_is_left_out() -> None:
    assert {file.stem for file in BENCHMARKS.glob("*.py")} == {*SMALLEST, *TOO_MUCH}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs_in_its_smallest_size(name: str, data: Path) -> None:
    if name == "cp2k_by_hand" and shutil.which("cp2k.psmp") is None:
        pytest.skip("cp2k.psmp is not on PATH")
    done = run(data, name, SMALLEST[name].split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_benchmark_that_takes_too_much_says_its_options(name: str, tmp_path: Path) -> None:
    done = run(tmp_path, name, ["--help"])
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
