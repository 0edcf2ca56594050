"""Predictors made of predictors, against their definitions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from psiflow_core.components import CalculatorPredictor, Prediction, Predictor, Sum
from psiflow_core.errors import OptionError
from psiflow_core.potentials.predictors import Committee, force_spread


def lennard_jones(sigma: float) -> CalculatorPredictor:
    return CalculatorPredictor(LennardJones(sigma=sigma, epsilon=0.1, rc=4.0, smooth=True))


def argon(seed: int = 0) -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


MEMBERS = [lennard_jones(sigma) for sigma in (3.3, 3.4, 3.6)]


def test_a_committee_says_the_mean_of_its_members() -> None:
    structures = [argon(1), argon(2)]
    opinions = [member.predict(structures) for member in MEMBERS]
    for number, answer in enumerate(Committee(MEMBERS).predict(structures)):
        assert answer.energy == pytest.approx(np.mean([opinion[number].energy for opinion in opinions]))
        np.testing.assert_allclose(answer.forces, np.mean([opinion[number].forces for opinion in opinions], axis=0))
        stresses = [opinion[number].stress for opinion in opinions if opinion[number].stress is not None]
        np.testing.assert_allclose(answer.stress, np.mean(stresses, axis=0))


def test_the_deviation_is_the_standard_deviation_of_each_atoms_force_vector() -> None:
    atoms = argon()
    forces = [member.predict([atoms])[0].forces for member in MEMBERS]
    by_hand = []
    for atom in range(len(atoms)):
        mean = sum(force[atom] for force in forces) / len(forces)
        by_hand.append(np.sqrt(sum(np.linalg.norm(force[atom] - mean) ** 2 for force in forces) / len(forces)))
    np.testing.assert_allclose(Committee(MEMBERS).predict([atoms])[0].deviation, by_hand)


def test_two_opposite_forces_deviate_by_their_length() -> None:
    forces = np.array([[[3.0, 4.0, 0.0]], [[-3.0, -4.0, 0.0]]])
    np.testing.assert_allclose(force_spread(forces), [5.0])


def test_members_that_agree_do_not_deviate() -> None:
    answer = Committee([MEMBERS[0], MEMBERS[0]]).predict([argon()])[0]
    assert answer.deviation is not None
    assert answer.deviation.max() == 0.0


def test_a_sum_adds_energies_forces_and_stresses() -> None:
    atoms = argon()
    first, second = (term.predict([atoms])[0] for term in MEMBERS[:2])
    answer = Sum(MEMBERS[:2]).predict([atoms])[0]
    assert answer.energy == pytest.approx(first.energy + second.energy)
    np.testing.assert_allclose(answer.forces, first.forces + second.forces)
    assert first.stress is not None
    assert second.stress is not None
    np.testing.assert_allclose(answer.stress, first.stress + second.stress)


def test_forces_of_a_sum_and_of_a_committee_are_the_gradient_of_the_energy() -> None:
    for predictor in (Sum(MEMBERS), Committee(MEMBERS)):
        atoms = argon()
        atoms.calc = predictor.calculator()
        for atom, axis in ((0, 0), (3, 2)):
            energies = []
            for step in (1e-4, -1e-4):
                moved = atoms.copy()
                moved.positions[atom, axis] += step
                moved.calc = predictor.calculator()
                energies.append(moved.get_potential_energy())
            assert atoms.get_forces()[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / 2e-4, abs=1e-6)


def test_the_spread_of_a_sum_is_that_of_its_committees() -> None:
    atoms = argon()
    committee = Committee(MEMBERS)
    answer = Sum([committee, lennard_jones(3.0)]).predict([atoms])[0]
    np.testing.assert_allclose(answer.deviation, committee.predict([atoms])[0].deviation)
    assert Sum(MEMBERS).predict([atoms])[0].deviation is None


def test_a_stress_is_only_told_where_every_part_knows_one() -> None:
    class Stressless(Predictor):
        def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
            return [Prediction(0.0, np.zeros((len(atoms), 3))) for atoms in structures]

    assert Sum([MEMBERS[0], Stressless()]).predict([argon()])[0].stress is None
    assert Committee([MEMBERS[0], Stressless()]).predict([argon()])[0].stress is None


def test_any_ase_calculator_is_a_predictor() -> None:
    atoms, free = bulk("Cu", cubic=True), molecule("CO")
    atoms.rattle(0.05, seed=0)
    predictor = CalculatorPredictor(EMT())
    crystal, single = predictor.predict([atoms, free])
    atoms.calc, free.calc = EMT(), EMT()
    assert crystal.energy == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(crystal.forces, atoms.get_forces())
    np.testing.assert_allclose(crystal.stress, atoms.get_stress())
    assert single.energy == pytest.approx(free.get_potential_energy())
    assert single.stress is None


def test_what_was_predicted_is_not_changed_by_the_next_prediction() -> None:
    predictor = CalculatorPredictor(EMT())
    first = predictor.predict([molecule("CO")])[0]
    kept = first.forces.copy()
    predictor.predict([molecule("N2")])
    np.testing.assert_array_equal(first.forces, kept)


def test_a_committees_calculator_shows_its_spread_and_follows_the_atoms() -> None:
    atoms = argon()
    atoms.calc = Committee(MEMBERS).calculator()
    before = atoms.get_potential_energy()
    assert atoms.calc.results["deviation"].shape == (len(atoms),)
    assert atoms.calc.results["free_energy"] == before
    atoms.positions[0] += 0.3
    assert atoms.get_potential_energy() != before


def test_the_cutoff_is_the_largest_of_the_parts() -> None:
    members = [lennard_jones(3.0), lennard_jones(3.0)]
    members[0].cutoff, members[1].cutoff = 4.0, 6.0
    assert Committee(members).cutoff == Sum(members).cutoff == 6.0


def test_copies_of_a_structure_share_the_model_and_keep_results_of_their_own() -> None:
    committee = Committee(MEMBERS)
    atoms = argon(1)
    atoms.calc = committee.calculator()
    before = atoms.get_potential_energy()
    images = [copy.deepcopy(atoms) for _ in range(2)]  # as NEB images are made
    images[1].positions[0, 0] += 0.3
    assert {id(image.calc.predictor) for image in images} == {id(committee)}
    assert images[0].get_potential_energy() == before != images[1].get_potential_energy()
    assert atoms.get_potential_energy() == before


@pytest.mark.parametrize(
    "predictor", [MEMBERS[0], Committee(MEMBERS), Sum(MEMBERS, [1.0, 0.5, -0.2])], ids=lambda one: type(one).__name__
)
def test_a_calculator_reaches_other_processes(predictor: Predictor) -> None:
    atoms = argon(1)
    atoms.calc = predictor.calculator()
    there = pickle.loads(pickle.dumps(atoms))
    np.testing.assert_array_equal(there.get_forces(), atoms.get_forces())


# Arithmetic ------------------------------------------------------------------------------------------------


class Spread(Predictor):
    """Two opinions, as a committee has them."""

    cutoff = 5.0

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return Committee([MEMBERS[0], MEMBERS[2]]).predict(structures)


COMPUTED = {
    "a + b": (lambda a, b: a + b, 1.0, 1.0),
    "a + 0.5 * b": (lambda a, b: a + 0.5 * b, 1.0, 0.5),
    "0.3 * a + b * 0.7": (lambda a, b: 0.3 * a + b * 0.7, 0.3, 0.7),
    "a - b": (lambda a, b: a - b, 1.0, -1.0),
    "-a + b / 4": (lambda a, b: -a + b / 4, -1.0, 0.25),
    "2 * (a - 0.5 * (b + a))": (lambda a, b: 2 * (a - 0.5 * (b + a)), 1.0, -1.0),
    "sum": (lambda a, b: sum([a, b]), 1.0, 1.0),
    "of NumPy": (lambda a, b: np.float64(0.5) * a + np.int64(2) * b, 0.5, 2.0),
}


@pytest.mark.parametrize("how", COMPUTED)
def test_arithmetic_on_predictors_is_that_of_their_energies_forces_and_stresses(how: str) -> None:
    compute, of_a, of_b = COMPUTED[how]
    a, b, atoms = Spread(), MEMBERS[1], argon()
    first, second = a.predict([atoms])[0], b.predict([atoms])[0]
    answer = compute(a, b).predict([atoms])[0]
    assert answer.energy == pytest.approx(of_a * first.energy + of_b * second.energy)
    np.testing.assert_allclose(answer.forces, of_a * first.forces + of_b * second.forces, atol=1e-12)
    assert first.stress is not None
    assert second.stress is not None
    np.testing.assert_allclose(answer.stress, of_a * first.stress + of_b * second.stress, atol=1e-12)
    assert first.deviation is not None
    assert answer.deviation is not None
    if how != "2 * (a - 0.5 * (b + a))":  # there a committee stands twice, and spreads are added
        np.testing.assert_allclose(answer.deviation, abs(of_a) * first.deviation)


def test_sums_of_sums_are_flat() -> None:
    a, b, c = MEMBERS
    nested = 2 * (a - 0.5 * (b + 3 * c))
    assert nested.terms == [a, b, c]
    assert nested.weights == [2.0, -1.0, -3.0]


def test_an_ase_calculator_is_added_from_either_side() -> None:
    copper, emt = bulk("Cu", cubic=True), CalculatorPredictor(EMT())
    copper.rattle(0.05, seed=1)
    single = emt.predict([copper])[0]
    for two in (emt + EMT(), EMT() + emt, 3 * emt - EMT()):
        assert two.predict([copper])[0].energy == pytest.approx(2 * single.energy)
        np.testing.assert_allclose(two.predict([copper])[0].forces, 2 * single.forces)
    assert (EMT() - emt).predict([copper])[0].energy == pytest.approx(0.0)


@pytest.mark.parametrize("other", ["mace", 1.0, None, argon(), [MEMBERS[0]]], ids=lambda one: type(one).__name__)
def test_other_things_are_not_added(other: Any) -> None:
    for compute in (lambda: MEMBERS[0] + other, lambda: MEMBERS[0] - other, lambda: other - MEMBERS[0]):
        with pytest.raises(OptionError, match="is no energy function; give a trained potential, a predictor"):
            compute()


@pytest.mark.parametrize("factor", ["2", True, None, float("nan"), MEMBERS[1], 1j], ids=repr)
def test_a_factor_is_a_number(factor: Any) -> None:
    with pytest.raises(OptionError, match="is not a finite number"):
        _ = MEMBERS[0] * factor


def test_the_calculator_of_a_committee_keeps_its_spread_in_a_sum() -> None:
    committee = Committee([CalculatorPredictor(LennardJones(epsilon=epsilon)) for epsilon in (1.0, 1.1)])
    dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.2]])
    summed = CalculatorPredictor(EMT()) + committee.calculator()
    (alone,), (together,) = committee.predict([dimer]), summed.terms[1].predict([dimer])
    assert np.max(alone.deviation) > 0
    np.testing.assert_array_equal(alone.deviation, together.deviation)
