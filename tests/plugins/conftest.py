"""A few copper-aluminium structures, labelled by ASE's effective-medium theory, for all potentials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from psiflow_core.components import TrainingTask
from psiflow_core.structures import Label, with_label


def label(atoms: Atoms) -> Atoms:
    calculator = EMT()
    atoms = atoms.copy()
    atoms.calc = calculator
    stress = atoms.get_stress() if atoms.pbc.all() else None
    return with_label(atoms, Label(atoms.get_potential_energy(), atoms.get_forces(), stress))


def crystal(rng: np.random.Generator) -> Atoms:
    """A strained and rattled cell of four atoms, one of them aluminium."""
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.numbers[rng.integers(4)] = 13
    strain = np.eye(3) + rng.normal(scale=0.02, size=(3, 3))
    atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
    atoms.positions += rng.normal(scale=0.08, size=(4, 3))
    return label(atoms)


def cluster(rng: np.random.Generator) -> Atoms:
    """Five atoms in vacuum."""
    corners = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1.7, 1.2, 1.1]]) * 1.85
    return label(Atoms("Cu4Al", corners + rng.normal(scale=0.08, size=(5, 3))))


@pytest.fixture(scope="session")
def training() -> list[Atoms]:
    rng = np.random.default_rng(1)
    return [make(rng) for make in [crystal, cluster] * 8]


@pytest.fixture(scope="session")
def validation() -> list[Atoms]:
    rng = np.random.default_rng(2)
    return [make(rng) for make in [crystal, cluster] * 3]


@pytest.fixture(scope="session")
def atomic_energies() -> dict[str, float]:
    return {symbol: float(label(Atoms(symbol)).get_potential_energy()) for symbol in ("Cu", "Al")}


@pytest.fixture(scope="session")
def task(
    training: list[Atoms], validation: list[Atoms], atomic_energies: dict[str, float], tmp_path_factory: Any
) -> Any:
    """Makes training tasks, each in a folder of its own unless it is given one."""

    def make(**changes: Any) -> TrainingTask:
        defaults = {
            "training": training,
            "validation": validation,
            "atomic_energies": atomic_energies,
            "seed": 3,
            "folder": tmp_path_factory.mktemp("training"),
        }
        return TrainingTask(**{**defaults, **changes})

    return make
