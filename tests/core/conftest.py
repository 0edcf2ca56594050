"""Workers, and small campaigns that have run, for the tests of what runs and of what looks at campaigns."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from ase.build import molecule
from psiflow_toys import campaigns

import psiflow_core as psiflow
from psiflow_core.environments import description, environment, install
from psiflow_core.execution.context import Context
from psiflow_core.sampling.bias.plumed_kernel import KERNEL

ROOT = Path(__file__).parents[2]
TOYS_ELSEWHERE = ROOT / "tests" / "toys_elsewhere"


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Two worker processes."""
    with Context(psiflow.executor("local", workers=2), folder=tmp_path_factory.mktemp("pools")) as context:
        yield context


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished campaign with 12 labels, some of which failed. Look, and leave it as it is."""
    folder = tmp_path_factory.mktemp("campaigns") / "toy"
    learning = psiflow.OnlineLearning(
        potential="toy",
        sampler=psiflow.sampler("ase", ensemble="nve", temperature=100.0),
        reference=psiflow.reference("toy", fail_fraction=0.2),
        walkers=2,
        committee=2,
        budget=psiflow.Budget(labels=12),
        bootstrap=psiflow.Bootstrap(structures=8),
        walking=psiflow.Walking(segment=psiflow.Segments(steps=20)),
        stopping=psiflow.Stopping(tolerated_failures=1.0),
    )
    with psiflow.Context("threads", folder=folder / "pools") as context:
        learning.run(start=molecule("H2O"), folder=folder, context=context, test=[molecule("H2O")], progress=False)
    return folder


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished campaign whose walkers gave most of its 14 labels. Look, and leave it as it is."""
    folder = tmp_path_factory.mktemp("campaigns") / "learned"
    learning = campaigns.learning(
        14,
        selection=psiflow.selection("uncertain", threshold=0.0),
        training=psiflow.Training(final_steps=3, validation=0.2),
    )
    with psiflow.Context("threads", folder=folder / "pools") as context:
        campaigns.run(folder, context, learning, test=campaigns.moved_water(2, seed=5))
    return folder


@pytest.fixture
def toy_plumed(_toy_plumed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy in the place of PLUMED's library."""
    monkeypatch.setenv(KERNEL, str(_toy_plumed))


@pytest.fixture(scope="session")
def _toy_plumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("plumed") is None:
        pytest.skip("the Python package of PLUMED is not installed: pip install plumed")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    library, source = tmp_path_factory.mktemp("toy") / "libtoy.so", ROOT / "tests" / "toys" / "plumed_kernel.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-lm"], check=True)
    return library


@pytest.fixture(scope="module", autouse=True)
def _no_environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The environments of whoever runs the tests are out of sight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.FOLDER, str(tmp_path_factory.mktemp("environments")))
        yield


@pytest.fixture
def elsewhere(_distant: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of environments: there is one, `distant`, that has the potential `distant`. Leave it as it is."""
    monkeypatch.setenv(environment.FOLDER, str(_distant))
    return _distant


@pytest.fixture(scope="session")
def _distant() -> Path:
    """A folder of environments that is kept from one test run to the next, until what they are made of changes."""
    folder = Path(sys.prefix) / "environments-for-tests"
    folder.mkdir(exist_ok=True)
    projects = b"".join((place / "pyproject.toml").read_bytes() for place in (ROOT, TOYS_ELSEWHERE))
    made_of = hashlib.sha256(projects + f"{sys.version} {version('parsl')}".encode()).hexdigest()
    with pytest.MonkeyPatch.context() as patch, (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv(environment.FOLDER, str(folder))
        if not (folder / made_of).exists():
            shutil.rmtree(folder / "distant", ignore_errors=True)
            install.create("distant", ("-e", str(TOYS_ELSEWHERE)))
            (folder / made_of).touch()
        there = environment.read("distant")  # of which psiflow's own code may have changed
        environment.keep(replace(there, description=description.ask(there.launch, engines=True)))
    return folder
