from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from ase import Atoms
from ase.build import molecule
from psiflow_cp2k import _start
from psiflow_cp2k.reference import CP2K

from psiflow_core.components import LabelTask, Resources
from psiflow_core.structures import Label

Labeller = Callable[..., Label]

CHEAP = {"basis": "SZV-MOLOPT-GTH", "cutoff": 150.0, "rel_cutoff": 30.0, "vacuum": 2.5}
"""Quick, and as true to physics as CP2K's finest: what is checked holds at every level."""

ONE_CORE = Resources()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The hook is given the items of all folders."""
    if shutil.which("cp2k.psmp"):
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="there is no cp2k.psmp on PATH; apt-get install cp2k"))


@pytest.fixture(autouse=True)
def _open_mpi_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run in a container."""
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")


@pytest.fixture(autouse=True)
def _no_orbitals_of_other_tests() -> Iterator[None]:
    _start.forget()
    yield
    _start.forget()


@pytest.fixture
def label(tmp_path: Path) -> Labeller:
    """Label a structure cheaply, in a folder of its own."""

    def labelled(atoms: Atoms, resources: Resources = ONE_CORE, **options: Any) -> Label:
        task = LabelTask(Path(mkdtemp(dir=tmp_path)), resources)
        level = {} if "force_eval" in options else CHEAP
        return CP2K.parse({**level, **options}).label(atoms, task)

    return labelled


@pytest.fixture
def water() -> Atoms:
    """Off its equilibrium, so that no force vanishes by symmetry."""
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def hydrogen() -> Atoms:
    atoms = molecule("H2")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def crystal() -> Atoms:
    """A molecule in a small skew cell: a crystal for the code, and a quick one."""
    cell = [[3.6, 0.0, 0.0], [0.5, 3.8, 0.0], [-0.3, 0.4, 4.0]]
    return Atoms("H2", [[0.1, 0.2, 0.3], [0.3, 0.6, 0.9]], cell=cell, pbc=True)
