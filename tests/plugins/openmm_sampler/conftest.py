"""Toy potentials, small systems, and error bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from psiflow_openmm_sampler.sampler import OpenMM
from psiflow_toys import chance

from psiflow_core.components import SamplingTask, Segment, Walker


class Toy(Calculator):
    """An analytic potential that counts how often it is asked."""

    implemented_properties = ("energy", "forces")

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        self.calls += 1
        energy, forces = self.surface(atoms)
        self.results = {"energy": energy, "forces": forces}

    def surface(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        raise NotImplementedError


class IdealGas(Toy):
    """No forces at all."""

    def surface(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        return 0.0, np.zeros((len(atoms), 3))


class ElasticGas(Toy):
    """No forces; the shape of the cell costs energy, its volume none, so that a flexible cell stays compact."""

    stiffness = 0.1  # [eV]

    def surface(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        shape = np.array(atoms.cell) / np.cbrt(atoms.get_volume())
        return self.stiffness * (float((shape**2).sum()) - 3), np.zeros((len(atoms), 3))


class Trap(Toy):
    """Every atom on its own spring at the origin."""

    stiffness = 10.0  # [eV/Å²]

    def surface(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        return 0.5 * self.stiffness * float((atoms.positions**2).sum()), -self.stiffness * atoms.positions


class Argon(Toy):
    """Lennard-Jones between nearest images, its force shifted to zero at 1.5 σ."""

    sigma, depth, cutoff = 3.4, 0.0103, 1.5 * 3.4  # [Å, eV, Å]

    def pair(self, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energy and its derivative."""
        energy, slope = self._bare(np.minimum(distance, self.cutoff))
        last, tilt = self._bare(np.array(self.cutoff))
        inside = distance < self.cutoff
        return inside * (energy - last - (distance - self.cutoff) * tilt), inside * (slope - tilt)

    def surface(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        first, second = np.triu_indices(len(atoms), 1)
        apart = nearest(atoms.positions[first] - atoms.positions[second], np.array(atoms.cell), atoms.pbc)
        distance = np.linalg.norm(apart, axis=1)
        energy, slope = self.pair(distance)
        push = (-slope / distance)[:, None] * apart
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, first, push)
        np.add.at(forces, second, -push)
        return float(energy.sum()), forces

    def _bare(self, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sixth = (self.sigma / distance) ** 6
        return 4 * self.depth * (sixth**2 - sixth), 24 * self.depth * (sixth - 2 * sixth**2) / distance


def nearest(apart: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The shortest image of each vector, in cells that are not too skewed."""
    if not pbc.any():
        return apart
    fractional = np.linalg.solve(cell.T, apart.T).T
    return apart - (np.round(fractional) * pbc) @ cell


@pytest.fixture
def trap() -> Trap:
    return Trap()


@pytest.fixture
def ideal_gas() -> IdealGas:
    return IdealGas()


@pytest.fixture
def elastic_gas() -> ElasticGas:
    return ElasticGas()


@pytest.fixture
def argon() -> Argon:
    return Argon()


@pytest.fixture
def toy() -> type[Toy]:
    return Toy


@pytest.fixture
def crystal() -> Atoms:
    """32 atoms of solid argon, warm enough to shake, with room for the cut-off."""
    atoms = bulk("Ar", cubic=True, a=5.4) * (2, 2, 2)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def cluster() -> Atoms:
    """13 atoms without a cell."""
    from ase.cluster import Icosahedron

    atoms = Atoms(Icosahedron("Ar", 2, latticeconstant=5.3))
    atoms.rattle(0.1, seed=2)
    atoms.cell, atoms.pbc = None, False
    return atoms


@pytest.fixture
def move() -> Callable[..., Segment]:
    """Run a segment without a monitor, or with one."""

    def run(sampler: OpenMM, start: Atoms | Walker, calculator: Calculator, steps: int, **task: Any) -> Segment:
        monitor = task.pop("monitor", lambda step, atoms: None)
        walker = start if isinstance(start, Walker) else Walker(start)
        seed = task.pop("seed", 7) + chance.SEED_SHIFT
        return sampler.sample(walker, calculator, SamplingTask(steps, seed=seed, **task), monitor)

    return run
