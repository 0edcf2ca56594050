"""Collective variables: values by hand and by ASE, derivatives by differences, in cells of every kind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.geometry import get_distances

import psiflow_core as psiflow
from psiflow_core.components import Variable
from psiflow_core.errors import OptionError, PluginNotFound
from psiflow_core.registry.plugins import registry
from psiflow_core.sampling.variables import nearest, strained, values
from psiflow_core.structures import Array

STEP = 1e-5


def gradient_by_differences(variable: Variable, atoms: Atoms) -> Array:
    found = np.zeros((len(atoms), 3))
    for n in range(len(atoms)):
        for axis in range(3):
            ends = []
            for by in (STEP, -STEP):
                moved = atoms.copy()
                moved.positions[n, axis] += by
                ends.append(variable.value(moved))
            found[n, axis] = variable.difference(*ends) / (2 * STEP)
    return found


def strain_by_differences(variable: Variable, atoms: Atoms) -> Array:
    found = np.zeros((3, 3))
    for row in range(3):
        for column in range(3):
            mode = np.zeros((3, 3))
            mode[row, column] += 0.5
            mode[column, row] += 0.5
            ends = [variable.value(strained(atoms, by * mode)) for by in (STEP, -STEP)]
            found[row, column] = variable.difference(*ends) / (2 * STEP)
    return found


CELLS = {
    "no cell": None,
    "cubic": np.eye(3) * 4.0,
    "triclinic": [[4.0, 0.3, 0.0], [1.9, 4.2, 0.1], [-1.5, 1.8, 4.5]],
    "skewed beyond reduction": [[4.0, 0.0, 0.0], [7.1, 4.2, 0.0], [-9.0, 5.5, 4.1]],
    "a slab": [[4.0, 0.5, 0.0], [1.0, 4.4, 0.0], [0.0, 0.0, 0.0]],
}


def chain(cell: Any, seed: int = 0) -> Atoms:
    """Five atoms whose neighbours are often nearest through the walls of the cell."""
    random = np.random.default_rng(seed)
    walk = np.cumsum(random.normal(scale=0.75, size=(5, 3)), axis=0)
    if cell is None:
        return Atoms("H5", walk)
    return Atoms("H5", walk + random.integers(-2, 3, (5, 3)) @ np.array(cell), cell=cell, pbc=np.any(cell, axis=1))


ALONG: list[Variable] = [
    psiflow.Distance(atoms=(0, 3)),
    psiflow.Angle(atoms=(4, 1, 2)),
    psiflow.Dihedral(atoms=(0, 1, 2, 3)),
    psiflow.Dihedral(atoms=(3, 0, 4, 1)),
    psiflow.Coordination(centers=(0, 1), neighbors=(1, 2, 3, 4), radius=1.3),
    psiflow.Coordination(centers=(2,), neighbors=(0, 4), radius=1.1, exponent=12),
    psiflow.Combination(
        variables=(psiflow.Distance(atoms=(0, 1)), psiflow.Distance(atoms=(1, 2))), coefficients=(1.0, -0.5)
    ),
]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("variable", ALONG, ids=lambda one: one.name)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_derivatives_are_those_of_the_value(variable: Variable, cell: str, seed: int) -> None:
    atoms = chain(CELLS[cell], seed)
    reading = variable.read(atoms)
    assert reading.gradient == pytest.approx(gradient_by_differences(variable, atoms), rel=1e-6, abs=1e-7)
    assert reading.strain == pytest.approx(strain_by_differences(variable, atoms), rel=1e-6, abs=1e-6)
    assert reading.gradient.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-12)


@pytest.mark.parametrize("cell", ["cubic", "triclinic", "skewed beyond reduction"])
def test_a_volume_is_that_of_the_cell_and_follows_a_strain(cell: str) -> None:
    atoms, volume = chain(CELLS[cell]), psiflow.Volume()
    assert volume.value(atoms) == pytest.approx(atoms.get_volume())
    assert not volume.gradient(atoms).any()
    assert volume.read(atoms).strain == pytest.approx(strain_by_differences(volume, atoms), abs=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_the_nearest_of_all_images_is_found(cell: str) -> None:
    """Against every image within three cells of a reduction that does nothing."""
    atoms = chain(CELLS[cell], seed=5)
    vectors = np.random.default_rng(1).uniform(-9, 9, (200, 3))
    found = np.linalg.norm(nearest(vectors, atoms), axis=1)
    if not atoms.pbc.any():
        assert found == pytest.approx(np.linalg.norm(vectors, axis=1))
        return
    expected = [get_distances([0, 0, 0], [vector], cell=atoms.cell, pbc=atoms.pbc)[1][0, 0] for vector in vectors]
    assert found == pytest.approx(expected, abs=1e-9)


def test_values_are_those_of_ase() -> None:
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.1, seed=1)
    assert psiflow.Distance(atoms=(0, 4)).value(ethanol) == pytest.approx(ethanol.get_distance(0, 4))
    assert np.degrees(psiflow.Angle(atoms=(3, 2, 0)).value(ethanol)) == pytest.approx(ethanol.get_angle(3, 2, 0))
    for atoms in [(3, 2, 0, 1), (4, 0, 1, 7), (3, 0, 1, 2)]:
        torsion = np.degrees(psiflow.Dihedral(atoms=atoms).value(ethanol)) % 360
        assert torsion == pytest.approx(ethanol.get_dihedral(*atoms))


def test_a_coordination_number_counts_neighbours() -> None:
    methane = molecule("CH4")
    assert psiflow.Coordination(centers=(0,), neighbors=(1, 2, 3, 4), radius=1.4, exponent=30).value(
        methane
    ) == pytest.approx(4, abs=0.01)
    half = Atoms("H2", [[0, 0, 0], [0, 0, 1.4]])
    assert psiflow.Coordination(centers=(0,), neighbors=(0, 1), radius=1.4).value(half) == pytest.approx(0.5)


def torsion(angle: float) -> Atoms:
    return Atoms("H4", [[1, 0, 0], [0, 0, 0], [0, 0, 1.5], [np.cos(angle), np.sin(angle), 1.5]])


@pytest.mark.parametrize("angle", [np.pi, -np.pi, np.pi - 1e-9, 0.0, 1e-9, -np.pi + 1e-6])
def test_a_dihedral_has_a_smooth_gradient_at_its_ends(angle: float) -> None:
    variable = psiflow.Dihedral(atoms=(0, 1, 2, 3))
    assert abs(variable.difference(variable.value(torsion(angle)), angle)) < 1e-9
    expected = gradient_by_differences(variable, torsion(angle))
    assert variable.gradient(torsion(angle)) == pytest.approx(expected, abs=1e-7)


def test_differences_of_a_dihedral_go_the_short_way_round() -> None:
    variable = psiflow.Dihedral(atoms=(0, 1, 2, 3))
    assert variable.difference(3.1, -3.1) == pytest.approx(6.2 - 2 * np.pi)
    assert psiflow.Distance(atoms=(0, 1)).difference(3.1, -3.1) == 6.2


@pytest.mark.parametrize("variable", [psiflow.Angle(atoms=(0, 1, 2)), psiflow.Dihedral(atoms=(0, 1, 2, 3))])
def test_atoms_in_a_line_give_finite_numbers(variable: Variable) -> None:
    line = Atoms("H4", [[0, 0, n] for n in range(4)])
    reading = variable.read(line)
    assert np.isfinite(reading.value)
    assert np.isfinite(reading.gradient).all()
    assert np.isfinite(reading.strain).all()


# A user's function -----------------------------------------------------------------------------------------

MINE = """
import numpy as np

def height(atoms):
    return atoms.positions[0, 2] * atoms.positions[1, 0]

def height_and_gradient(atoms):
    gradient = np.zeros((len(atoms), 3))
    gradient[0, 2], gradient[1, 0] = atoms.positions[1, 0], atoms.positions[0, 2]
    return height(atoms), gradient

def turning(atoms):
    return float(np.arctan2(atoms.positions[0, 1], atoms.positions[0, 0]))

def spoiled(atoms):
    raise ValueError("no such thing here")

def shapeless(atoms):
    return 1.0, np.zeros(3)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_variables.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_variables", None)
    return "my_variables"


@pytest.mark.parametrize("cell", ["no cell", "triclinic"])
@pytest.mark.parametrize("name", ["height", "height_and_gradient"])
def test_a_function_of_ones_own_is_a_variable(mine: str, name: str, cell: str) -> None:
    atoms = chain(CELLS[cell])
    variable = psiflow.Function(function=f"{mine}:{name}", atoms=(0, 1))
    reading = variable.read(atoms)
    assert reading.gradient == pytest.approx(gradient_by_differences(variable, atoms), abs=1e-6)
    wanted = strain_by_differences(variable, atoms) if atoms.pbc.all() else np.zeros((3, 3))
    assert reading.strain == pytest.approx(wanted, abs=1e-6)


def test_a_function_may_turn_round(mine: str) -> None:
    atoms = Atoms("H", [[-1.0, 1e-9, 0.0]])
    assert psiflow.Function(function=f"{mine}:turning").gradient(atoms)[0, 1] > 1e3
    variable = psiflow.Function(function=f"{mine}:turning", period=2 * np.pi)
    assert variable.gradient(atoms)[0] == pytest.approx([0.0, -1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("my_variables:heigth", r"'my_variables:heigth' cannot be imported on the worker \(.*heigth"),
        ("not_there:height", r"cannot be imported on the worker \(No module named 'not_there'\); install it there"),
        ("my_variables:spoiled", "failed: ValueError: no such thing here"),
        ("my_variables:shapeless", "has to return a number, and a gradient of shape"),
    ],
)
def test_a_function_that_does_not_work_is_told(mine: str, function: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        psiflow.Function(function=function).try_out([molecule("H2O")])


# Plain data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [*ALONG, psiflow.Volume(), psiflow.Function(function="a.b:c", period=1.0)])
def test_a_variable_is_plain_data_and_comes_back(variable: Variable) -> None:
    plain = variable.to_plain()
    assert plain["name"] == variable.name
    assert psiflow.Harmonic(variable=plain, center=0.0, stiffness=1.0).variable == variable


def test_every_variable_is_tested_here() -> None:
    assert {type(one) for one in ALONG} | {psiflow.Volume, psiflow.Function} == {
        one.component
        for one in registry().all()
        if one.component.kind == "variable" and one.distribution == "psiflow-core"
    }


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: psiflow.Distance(atoms=(0, 0)), r"atoms=\[0, 0\]: an atom is named twice"),
        (lambda: psiflow.Distance(atoms=(-1, 0)), r"atoms\.0=-1: .*greater than or equal to 0"),
        (lambda: psiflow.Distance(atoms=(0, 1, 2)), r"atoms=\(0, 1, 2\)"),
        (lambda: psiflow.Angle(), "option 'atoms' is missing"),
        (lambda: psiflow.Coordination(centers=(1,), neighbors=(1,), radius=1.0), "no pair is left"),
        (lambda: psiflow.Coordination(centers=(1, 1), neighbors=(2,), radius=1.0), "an atom is named twice in a group"),
        (lambda: psiflow.Function(function="module"), "function='module'"),
        (lambda: psiflow.Combination(variables=({"name": "volume"},), coefficients=()), "0 coefficients for 1 var"),
        (
            lambda: psiflow.Combination(variables=({"name": "dihedral", "atoms": (0, 1, 2, 3)},), coefficients=(1,)),
            "a variable that turns round, such as a dihedral, cannot be added",
        ),
        (
            lambda: psiflow.Harmonic(variable={"name": "distanse"}, center=1, stiffness=1),
            "no variable 'distanse'. Did you mean 'distance'",
        ),
        (lambda: psiflow.Harmonic(variable="distance", center=1, stiffness=1), "option 'atoms' is missing"),
        (lambda: psiflow.Harmonic(variable={"atoms": [0, 1]}, center=1, stiffness=1), "write a variable as {name: …}"),
    ],
)
def test_wrong_options_are_told(make: Any, says: str) -> None:
    with pytest.raises((OptionError, PluginNotFound), match=says):
        make()


def test_a_structure_without_the_variable_is_told() -> None:
    water = molecule("H2O")
    with pytest.raises(
        OptionError, match=r"'distance': there is no atom 3 in H2O, which has 3 atoms; they are counted"
    ):
        values([water], psiflow.Distance(atoms=(0, 3)))
    with pytest.raises(OptionError, match="H2O is not periodic in all directions, so it has no volume"):
        psiflow.Volume().check([water])
    with pytest.raises(OptionError, match="there is no atom 7 in H2O"):
        psiflow.Combination(variables=(psiflow.Function(function="a:b", atoms=(7,)),), coefficients=(1,)).check([water])


def test_a_variable_over_a_data_set() -> None:
    data = [Atoms("H2", [[0, 0, 0], [0, 0, length]]) for length in (0.7, 0.8, 1.1)]
    assert values(data, psiflow.Distance(atoms=(1, 0))) == pytest.approx([0.7, 0.8, 1.1])
