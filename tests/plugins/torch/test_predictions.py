"""Predictions of a trained model, beyond what holds for every potential (`test_contract.py`)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.components import Predictor
from psiflow_core.errors import StructureError


@pytest.fixture(scope="module", params=["crystal", "cluster"])
def structure(request: pytest.FixtureRequest, validation: list[Atoms]) -> Atoms:
    return validation[0 if request.param == "crystal" else 1].copy()


def slab_of(crystal: Atoms) -> Atoms:
    slab = crystal.copy()
    slab.pbc = [True, True, False]
    return slab


def test_inversion_turns_the_forces_around(predictor: Predictor, structure: Atoms) -> None:
    mirrored = structure.copy()
    mirrored.positions *= -1
    mirrored.cell = -np.asarray(structure.cell)
    before, after = predictor.predict([structure, mirrored])
    assert after.energy == pytest.approx(before.energy, abs=1e-9)
    np.testing.assert_allclose(after.forces, -before.forces, atol=1e-9)


def test_a_supercell_has_the_energy_of_its_cells(predictor: Predictor, validation: list[Atoms]) -> None:
    crystal = validation[0].copy()
    cell, supercell = predictor.predict([crystal, crystal.repeat((2, 1, 2))])
    assert supercell.energy == pytest.approx(4 * cell.energy, abs=1e-8)
    np.testing.assert_allclose(supercell.stress, cell.stress, atol=1e-10)


def test_atoms_far_apart_have_the_energies_of_isolated_atoms(
    predictor: Predictor, atomic_energies: dict[str, float]
) -> None:
    far = Atoms("CuAl", [[0, 0, 0], [predictor.cutoff + 0.01, 0, 0]])
    copper, aluminium, pair = predictor.predict([Atoms("Cu"), Atoms("Al"), far])
    assert copper.energy == atomic_energies["Cu"]
    assert aluminium.energy == atomic_energies["Al"]
    assert pair.energy == pytest.approx(atomic_energies["Cu"] + atomic_energies["Al"], abs=1e-12)
    np.testing.assert_array_equal(pair.forces, 0.0)


def test_a_batch_says_what_each_structure_says_alone(predictor: Predictor, validation: list[Atoms]) -> None:
    mixed = [*validation, Atoms("Cu"), validation[0].repeat(2), Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])]
    mixed.append(slab_of(validation[0]))
    for atoms, together in zip(mixed, predictor.predict(mixed), strict=True):
        alone = predictor.predict([atoms])[0]
        assert together.energy == pytest.approx(alone.energy, abs=1e-9)
        np.testing.assert_allclose(together.forces, alone.forces, atol=1e-10)
        if atoms.pbc.all():
            np.testing.assert_allclose(together.stress, alone.stress, atol=1e-12)
        else:
            assert together.stress is None is alone.stress


def test_batches_that_do_not_fit_memory_are_cut_up(
    predictor: Predictor, validation: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predictor.predict(validation)
    monkeypatch.setattr(predictor, "_max_edges", 300)
    for before, after in zip(whole, predictor.predict(validation), strict=True):
        np.testing.assert_allclose(after.forces, before.forces, atol=1e-10)


def test_a_molecule_does_not_feel_the_box_around_it(predictor: Predictor, validation: list[Atoms]) -> None:
    boxed = validation[1].copy()
    boxed.set_cell([3.0, 50.0, 0.0])
    free, inside = predictor.predict([validation[1], boxed])
    assert inside.energy == free.energy
    assert inside.stress is None


def test_a_slab_is_periodic_in_its_plane_only(predictor: Predictor, validation: list[Atoms]) -> None:
    slab = slab_of(validation[0])
    padded = slab.copy()
    padded.cell[2] *= 5
    padded.pbc = True
    open_, periodic = predictor.predict([slab, padded])
    assert open_.energy == pytest.approx(periodic.energy, abs=1e-9)
    np.testing.assert_allclose(open_.forces, periodic.forces, atol=1e-9)
    assert open_.stress is None
    assert periodic.stress is not None


def test_an_unknown_species_is_named(predictor: Predictor) -> None:
    with pytest.raises(StructureError, match=r"knows Al, Cu and not Au"):
        predictor.predict([Atoms("CuAu", [[0, 0, 0], [0, 0, 2.5]])])


def test_the_calculator_drives_ase(predictor: Predictor, validation: list[Atoms]) -> None:
    atoms = validation[0].copy()
    atoms.calc = predictor.calculator()
    expected = predictor.predict([atoms])[0]
    assert atoms.get_potential_energy() == expected.energy
    np.testing.assert_array_equal(atoms.get_stress(), expected.stress)


def test_threads_that_share_a_model_see_their_own_neighbours(predictor: Predictor, validation: list[Atoms]) -> None:
    """A walker in each thread: what one asks must not change what the other is told."""
    builder = predictor._builder
    several = [atoms for crystal in validation[::2] for atoms in (crystal, crystal.repeat((2, 2, 1)))]
    alone = [builder.graph(atoms) for atoms in several]

    def wrong(thread: int) -> int:
        order = np.random.default_rng(thread).integers(len(several), size=1500)
        return sum(not np.array_equal(builder.graph(several[k]).edges, alone[k].edges) for k in order)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(wrong, range(2))) == [0, 0]
