"""Near-duplicates are found whatever their orientation, the order of like atoms and the choice of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.cluster import Icosahedron
from psiflow_toys.campaigns import moved_water
from psiflow_toys.reference import ToyReference

import psiflow_core as psiflow
from psiflow_core.components import LabelTask
from psiflow_core.errors import OptionError
from psiflow_core.labels.likeness import apart, distance, surroundings
from psiflow_core.structures import with_label


def disturbed(atoms: Atoms, largest: float, seed: int = 0) -> Atoms:
    """Each atom is moved by up to a length. [Å]"""
    random, moved = np.random.default_rng(seed), atoms.copy()
    steps = random.normal(size=moved.positions.shape)
    moved.positions += largest * random.uniform(size=(len(moved), 1)) * steps / np.linalg.norm(steps, axis=1)[:, None]
    return moved


def salt() -> Atoms:
    return disturbed(bulk("NaCl", "rocksalt", a=5.64, cubic=True), 0.3, seed=5)


def slab() -> Atoms:
    return disturbed(fcc111("Cu", (2, 2, 2), vacuum=5.0), 0.2, seed=6)


STRUCTURES = {"molecule": molecule("CH3CHO"), "water": moved_water(1, seed=1)[0], "crystal": salt(), "slab": slab()}


def turned(atoms: Atoms) -> Atoms:
    other = atoms.copy()
    other.rotate(37, (1, 2, 3), rotate_cell=True)
    return other


def shifted(atoms: Atoms) -> Atoms:
    other = atoms.copy()
    other.positions += (1.3, -2.1, 0.7)
    return other


def permuted(atoms: Atoms) -> Atoms:
    return atoms[np.random.default_rng(3).permutation(len(atoms))]


def other_images(atoms: Atoms) -> Atoms:
    other = atoms.copy()
    steps = np.random.default_rng(4).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    other.positions += steps @ np.asarray(atoms.cell)
    return other


def other_cell(atoms: Atoms) -> Atoms:
    """The same lattice by other vectors."""
    other = atoms.copy()
    if atoms.pbc[:2].all():
        cell = np.array(atoms.cell)
        cell[1] += 2 * cell[0]
        other.set_cell(cell)
    return other


def mirrored(atoms: Atoms) -> Atoms:
    other = atoms.copy()
    mirror = np.diag([-1.0, 1.0, 1.0])
    other.set_cell(np.asarray(atoms.cell) @ mirror)
    other.positions = atoms.positions @ mirror
    return other


@pytest.mark.parametrize("change", [turned, shifted, permuted, other_images, other_cell, mirrored])
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_distance_of_a_structure_to_itself_is_zero_however_it_is_written(name: str, change: object) -> None:
    atoms = STRUCTURES[name]
    assert callable(change)
    assert distance(atoms, change(atoms)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("largest", [1e-3, 0.02, 0.1])
@pytest.mark.parametrize("name", STRUCTURES)
def test_atoms_that_move_by_a_length_change_the_distance_by_twice_that_at_most(name: str, largest: float) -> None:
    atoms = STRUCTURES[name]
    for seed in range(5):
        found = distance(atoms, disturbed(turned(permuted(atoms)), largest, seed))
        assert 0 < found <= 2 * largest


def test_the_distance_is_a_metric() -> None:
    one, two, three = (surroundings(atoms) for atoms in moved_water(3, seed=2))
    assert apart(one, two) == pytest.approx(apart(two, one))
    assert apart(one, three) <= apart(one, two) + apart(two, three) + 1e-12


def test_like_atoms_at_other_places_are_told_apart() -> None:
    """Isomers have the same atoms; a permutation of unlike atoms is another structure."""
    hcn = molecule("HCN")
    swapped = hcn.copy()
    swapped.numbers = hcn.numbers[[1, 0, 2]]
    assert distance(hcn, swapped) > 0.05
    assert distance(molecule("CH3CH2OH"), molecule("CH3OCH3")) > 0.1


def test_a_change_at_one_atom_counts_in_a_large_structure_as_in_a_small_one() -> None:
    silicon = bulk("Si", cubic=True) * (3, 3, 3)
    defect = silicon.copy()
    defect.positions[0] += (0.0, 0.0, 1.0)
    assert distance(silicon, defect) > 0.3
    assert len(psiflow.Dataset([silicon, defect]).deduplicate()) == 2


def test_fragments_are_told_apart_at_any_distance() -> None:
    """A dissociation curve, of fragments with more atoms than a periodic structure would compare."""
    cluster = Icosahedron("Cu", 3)
    curve = []
    for away in (14.0, 16.0, 40.0):
        other = cluster.copy()
        other.positions += (away, 0.0, 0.0)
        curve.append(cluster + other)
    assert distance(*curve[:2]) == pytest.approx(2.0, abs=0.1)
    assert len(psiflow.Dataset(curve).deduplicate()) == 3


def test_another_order_of_magnetic_moments_is_another_structure() -> None:
    ferromagnet, antiferromagnet = bulk("Fe", cubic=True), bulk("Fe", cubic=True)
    ferromagnet.set_initial_magnetic_moments([2.2, 2.2])
    antiferromagnet.set_initial_magnetic_moments([2.2, -2.2])
    assert distance(ferromagnet, antiferromagnet) == np.inf
    assert len(psiflow.Dataset([ferromagnet, antiferromagnet]).deduplicate()) == 2


@pytest.mark.parametrize("how", ["charge", "spin", "species", "periodicity"])
def test_other_atoms_electrons_or_periodicity_are_infinitely_far(how: str) -> None:
    one, other = molecule("H2O", vacuum=5.0), molecule("H2O", vacuum=5.0)
    if how == "species":
        other.numbers[0] = 16
    elif how == "periodicity":
        other.pbc = True
    else:
        other.info[how] = 2
    assert distance(one, other) == np.inf


def test_the_means_of_a_structure_differ_by_no_more_than_the_distance() -> None:
    """By that most structures are told apart before atoms are paired."""
    structures = [surroundings(disturbed(salt(), 0.3, seed)) for seed in range(4)]
    for one in structures:
        for other in structures:
            bound = np.abs(one.means - other.means).max(axis=1).sum()
            assert bound <= apart(one, other) + 1e-12


def labelled(atoms: Atoms) -> Atoms:
    return with_label(atoms, ToyReference().label(atoms, LabelTask(Path())))


def test_duplicates_are_left_out() -> None:
    waters = moved_water(4, seed=3)
    again = [disturbed(turned(permuted(atoms)), 0.005, seed=7) for atoms in waters[:3]]
    data = psiflow.Dataset([*waters, *again, molecule("CH4")])
    kept = data.deduplicate(tolerance=0.01)
    assert [len(atoms) for atoms in kept] == [3, 3, 3, 3, 5]
    assert all(one == other for one, other in zip(kept, waters, strict=False))
    assert len(kept.deduplicate(tolerance=0.01)) == 5
    assert len(data.deduplicate(tolerance=1e-9)) == 8
    assert len(data.deduplicate(tolerance=10.0)) == 2


def test_of_two_alike_the_labelled_one_stays() -> None:
    water = moved_water(1, seed=3)[0]
    data = psiflow.Dataset([water, labelled(turned(water)), labelled(shifted(water))])
    (kept,) = data.deduplicate()
    assert kept == data[1]


def test_a_tolerance_is_a_length() -> None:
    with pytest.raises(OptionError, match="give a distance of 0 Å or more"):
        psiflow.Dataset().deduplicate(tolerance=float("nan"))
