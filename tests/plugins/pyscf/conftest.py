from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from ase import Atoms
from ase.build import molecule
from psiflow_pyscf.reference import PySCF

from psiflow_core.components import LabelTask
from psiflow_core.structures import Label

Labeller = Callable[..., Label]


@pytest.fixture
def label(tmp_path: Path) -> Labeller:
    """Label a structure with these options, in a folder of its own."""

    def labelled(atoms: Atoms, **options: Any) -> Label:
        return PySCF(**options).label(atoms, LabelTask(Path(mkdtemp(dir=tmp_path))))

    return labelled


@pytest.fixture
def distorted() -> Callable[..., Atoms]:
    """A molecule of ASE's database, shaken so that no force vanishes by symmetry."""

    def shaken(name: str, spin: int = 1) -> Atoms:
        atoms = molecule(name)
        atoms.rattle(0.05, seed=1)
        atoms.set_initial_magnetic_moments(None)
        atoms.info["spin"] = spin
        return atoms

    return shaken
