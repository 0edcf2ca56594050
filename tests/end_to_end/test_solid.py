"""A crystal: the minimum that is relaxed to, its shape under pressure and its stiffness are the reference's.

Cu3Au by effective-medium theory. Learned from displaced and strained cells, relaxed from one that is neither cubic nor
in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

import psiflow_core as psiflow
from psiflow_core.components import SamplingTask, Walker
from psiflow_core.registry.plugins import build
from psiflow_core.structures import displaced

GPA = 1e9 * units.Pascal
BAR = 1e4
"""[bar/GPa]"""
PRESSURES = (0.0, 5.0)
"""[GPa]"""


def crystal() -> Atoms:
    """As it could be guessed: the lattice constant is 1 % too large."""
    atoms = bulk("Cu", cubic=True, a=3.77)
    atoms.symbols[0] = "Au"
    return atoms


def relaxing(pressure: float = 0.0, fmax: float = 0.01) -> Any:
    """The sampler at a pressure in GPa."""
    return psiflow.sampler("ase", ensemble="optimise", relax_cell=True, pressure=BAR * pressure, fmax=fmax)


def learning() -> psiflow.OnlineLearning:
    return psiflow.OnlineLearning(
        potential=psiflow.potential(
            "mace", num_channels=8, max_ell=2, num_interactions=1, energy_weight=1000.0, stress_weight=3e4
        ),
        sampler=psiflow.sampler("random-displacement", amplitude=0.04, strain=0.03),
        reference=psiflow.reference("ase", calculator="emt"),
        walkers=4,
        committee=1,
        budget=psiflow.Budget(labels=50),
        bootstrap=psiflow.Bootstrap(structures=30, amplitude=0.12, strain=0.04),
        training=psiflow.Training(steps=400, warm_steps=200, final_steps=800),
        selection=psiflow.selection("uncertain", threshold=0.0),
        walking=psiflow.Walking(segment=psiflow.Segments(steps=20, check_every=5)),
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> psiflow.Result:
    return learning().run(crystal(), tmp_path_factory.mktemp("crystal") / "campaign", progress=False)


def relaxed(potential: Calculator, pressure: float) -> Atoms:
    """By the sampler, from a distorted cell, with what moves a walker of a campaign."""
    sampler = build(relaxing(pressure, fmax=0.005))
    start = displaced(crystal(), 0.1, 0.03, np.random.default_rng(9))
    segment = sampler.sample(Walker(start), potential, SamplingTask(steps=300, seed=0), lambda step, atoms: None)
    assert segment.finished
    return segment.walker.structure


def reference(pressure: float) -> Atoms:
    """The reference's own minimum, by ASE alone."""
    atoms = crystal()
    atoms.rattle(0.02, seed=1)
    atoms.calc = EMT()
    assert BFGS(FrechetCellFilter(atoms, scalar_pressure=pressure * GPA), logfile=None).run(fmax=1e-4, steps=500)
    return atoms


def distances(atoms: Atoms) -> Any:
    """Every pair's, nearest images: a structure without its place and orientation. [Å]"""
    return atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]


@pytest.mark.parametrize("pressure", PRESSURES)
def test_a_relaxation_comes_to_the_references_own_minimum(result: psiflow.Result, pressure: float) -> None:
    ours, theirs = relaxed(result.potential.calculator(), pressure), reference(pressure)
    assert ours.cell.lengths() == pytest.approx(theirs.cell.lengths(), rel=0.002)
    assert distances(ours) == pytest.approx(distances(theirs), abs=0.01)


@pytest.mark.parametrize("pressure", PRESSURES)
def test_the_reference_finds_little_force_and_stress_left(result: psiflow.Result, pressure: float) -> None:
    atoms = relaxed(result.potential.calculator(), pressure)
    atoms.calc = EMT()
    unbalanced = atoms.get_stress() + pressure * GPA * np.array([1, 1, 1, 0, 0, 0])
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.05
    assert np.abs(unbalanced).max() < 0.3 * GPA


def test_atoms_in_a_fixed_cell_are_minimised_by_openmm_to_the_same_place(result: psiflow.Result) -> None:
    theirs = reference(0.0)
    start = theirs.copy()
    start.rattle(0.1, seed=4)
    sampler = build(psiflow.sampler("openmm", ensemble="minimise", tolerance=0.02))
    task = SamplingTask(steps=300, seed=0)
    segment = sampler.sample(Walker(start), result.potential.calculator(), task, lambda step, atoms: None)
    assert segment.finished
    assert distances(segment.walker.structure) == pytest.approx(distances(theirs), abs=0.01)


def test_the_equation_of_state_is_the_references(result: psiflow.Result) -> None:
    ours, theirs = (curve(calculator) for calculator in (result.potential.calculator(), EMT()))
    assert ours.v0 ** (1 / 3) == pytest.approx(theirs.v0 ** (1 / 3), rel=0.001)
    assert abs(ours.B / theirs.B - 1) < 0.06


def curve(calculator: Calculator) -> EquationOfState:
    """Energies of the reference's minimum, made larger and smaller by up to 2 % of its lengths."""
    volumes, energies = [], []
    for scale in np.linspace(0.98, 1.02, 7):
        atoms = reference(0.0)
        atoms.set_cell(scale * atoms.cell, scale_atoms=True)
        atoms.calc = calculator
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    eos = EquationOfState(volumes, energies, "birchmurnaghan")
    eos.fit()
    return eos
