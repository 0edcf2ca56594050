"""Biases, variables and selection strategies fulfil their contracts: psiflow's, and those of a toy plugin."""

from __future__ import annotations

import numpy as np
import psiflow_toys.policies as toys
import pytest
from ase import Atoms
from ase.build import bulk

import psiflow_core as psiflow
from psiflow_core.errors import OptionError
from psiflow_core.sampling.schemes import Incremental, Umbrella
from psiflow_core.strategies.diverse import Diverse
from psiflow_core.strategies.drawn import Random
from psiflow_core.strategies.uncertain import Uncertain
from psiflow_core.testing import BiasContract, SelectionContract, VariableContract
from psiflow_core.testing.component import ComponentContract
from psiflow_core.testing.selection import committee

BOND = {"name": "distance", "atoms": [0, 1]}


class TestDistance(VariableContract):
    component = psiflow.Distance
    options = {"atoms": [0, 1]}  # noqa: RUF012


class TestAngle(VariableContract):
    component = psiflow.Angle
    options = {"atoms": [0, 1, 2]}  # noqa: RUF012


class TestDihedral(VariableContract):
    component = psiflow.Dihedral
    options = {"atoms": [0, 1, 2, 3]}  # noqa: RUF012


class TestCoordination(VariableContract):
    component = psiflow.Coordination
    options = {"centers": [0, 1], "neighbors": [2, 3, 4], "radius": 2.0}  # noqa: RUF012


class TestVolume(VariableContract):
    component = psiflow.Volume


class TestCombination(VariableContract):
    component = psiflow.Combination
    options = {"variables": [BOND, {"name": "distance", "atoms": [1, 2]}], "coefficients": [1.0, -1.0]}  # noqa: RUF012


class TestFunction(VariableContract):
    component = psiflow.Function
    options = {"function": "psiflow_toys.policies:height"}  # noqa: RUF012
    tolerance = 1e-4


class TestToySpread(VariableContract):
    component = toys.Spread


class TestHarmonic(BiasContract):
    component = psiflow.Harmonic
    options = {"variable": BOND, "center": 1.0, "stiffness": 2.0}  # noqa: RUF012


class TestMovingHarmonic(BiasContract):
    component = psiflow.MovingHarmonic
    options = {"variable": BOND, "stop": 3.0, "steps": 300, "stiffness": 2.0, "after": 150}  # noqa: RUF012


class TestUpperWall(BiasContract):
    component = psiflow.UpperWall
    options = {"variable": BOND, "edge": 1.0, "stiffness": 2.0}  # noqa: RUF012


class TestLowerWall(BiasContract):
    component = psiflow.LowerWall
    options = {"variable": BOND, "edge": 3.0, "stiffness": 2.0}  # noqa: RUF012


class TestGrid(BiasContract):
    component = psiflow.Grid
    options = {  # noqa: RUF012
        "variables": [BOND],
        "start": [0.5],
        "stop": [4.0],
        "points": [9],
        "energies": np.cos(np.linspace(0.0, 6.0, 9)).tolist(),
    }


class TestMetadynamics(BiasContract):
    component = psiflow.Metadynamics
    options = {"variables": [BOND], "sigma": [0.3], "height": 0.1, "every": 100}  # noqa: RUF012


class TestAseCalculator(BiasContract):
    component = psiflow.AseCalculator
    options = {"calculator": "emt", "weight": 0.5}  # noqa: RUF012


class TestToyPen(BiasContract):
    component = toys.Pen
    options = {"variable": {"name": "toy-spread"}, "edge": 1.0, "stiffness": 0.1, "pace": 0.01}  # noqa: RUF012


class TestUmbrella(ComponentContract):
    component = Umbrella
    options = {"variable": BOND, "start": 1.0, "stop": 2.0, "stiffness": 2.0}  # noqa: RUF012


class TestIncremental(ComponentContract):
    component = Incremental
    options = {"variable": BOND, "start": 1.0, "stop": 2.0, "stiffness": 2.0, "steps": 4}  # noqa: RUF012


class TestUncertain(SelectionContract):
    component = Uncertain
    options = {"threshold": 0.0}  # noqa: RUF012


class TestDiverse(SelectionContract):
    component = Diverse
    options = {"count": 6}  # noqa: RUF012


class TestRandom(SelectionContract):
    component = Random
    options = {"fraction": 0.7}  # noqa: RUF012


class TestToyAlternate(SelectionContract):
    component = toys.Alternate


def test_a_strategy_returns_the_structures_themselves() -> None:
    copper = [bulk("Cu", cubic=True), bulk("Cu", a=3.8, cubic=True), bulk("Cu", a=4.4, cubic=True)]
    picked = psiflow.selection("diverse", count=1).choose(copper, data=copper[:1])
    assert len(picked) == 1
    assert picked[0] is copper[2], "it is the farthest from what is known"


def test_what_is_known_already_is_not_diverse() -> None:
    copper = bulk("Cu", cubic=True)
    turned = copper.copy()
    turned.rotate(30, "z", rotate_cell=True)
    assert psiflow.selection("diverse", count=3).choose([copper, turned], data=[copper]) == []


def test_the_most_uncertain_come_first() -> None:
    structures = [Atoms("H2", [[0, 0, 0], [0, 0, away]]) for away in (1.2, 0.75, 0.9)]
    model = committee()
    spreads = [float(np.max(prediction.deviation)) for prediction in model.predict(structures)]
    picked = psiflow.selection("uncertain", threshold=0.0).choose(structures, model=model)
    assert picked == [structures[number] for number in np.argsort(spreads)[::-1]]


@pytest.mark.parametrize(("candidates", "says"), [(3, "3 is neither a structure"), ("a.xyz", "read files with ase")])
def test_what_is_no_structure_cannot_be_chosen(candidates: object, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        psiflow.selection("random").choose(candidates)
