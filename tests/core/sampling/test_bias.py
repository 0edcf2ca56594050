"""Biases: their forces and stresses, what they remember, and the distributions that they give."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from psiflow_toys import chance, wells

import psiflow_core as psiflow
from psiflow_core.builtin.ase_sampler import AseSampler
from psiflow_core.components import (
    Bias,
    CalculatorPredictor,
    Memory,
    Prediction,
    Predictor,
    PredictorCalculator,
    Sampler,
    SamplingTask,
    Sum,
    Walker,
)
from psiflow_core.environments.catalogue import one_of
from psiflow_core.errors import OptionError, PluginNotFound, WalkerExploded
from psiflow_core.registry.plugins import registry
from psiflow_core.sampling.bias import WalkerBias, values
from psiflow_core.sampling.monitor import Limits, remembering
from psiflow_core.sampling.variables import strained
from psiflow_core.sampling.walk import sample_together
from psiflow_core.structures import Array

STEP = 1e-5
LIMITS = Limits(deviation=1e3, lost=1e4, force=1e6, distance=1e-3, temperature_quantile=1e-300)
"""They stop nothing."""

BOND = psiflow.Distance(atoms=(0, 1))
TORSION = psiflow.Dihedral(atoms=(0, 1, 2, 3))
VOLUME = psiflow.Volume()


def crystal(seed: int = 0) -> Atoms:
    copper = bulk("Cu", cubic=True)
    copper.set_cell(copper.cell @ [[1.0, 0.1, 0.0], [0.2, 1.1, 0.0], [0.0, -0.1, 0.9]], scale_atoms=True)
    copper.rattle(0.3, seed=seed)
    return copper


def table(points: int = 24) -> list[float]:
    return [0.3 * np.cos(2 * angle) + 0.1 * np.sin(angle) for angle in np.linspace(-np.pi, np.pi, points)]


def plane(rows: int, columns: int) -> list[float]:
    lengths, volumes = np.linspace(1.0, 4.0, rows), np.linspace(30.0, 70.0, columns)
    return [float(0.2 * np.sin(2 * length) * (volume - 45) / 10) for length in lengths for volume in volumes]


HILLS = np.array([[2.4, 0.4, 0.05], [2.5, -3.0, 0.04], [2.3, 3.0, 0.03]])

BIASED: list[tuple[Bias, Memory]] = [
    (psiflow.Harmonic(variable=BOND, center=2.0, stiffness=3.0), Memory()),
    (psiflow.Harmonic(variable=TORSION, center=3.1, stiffness=0.3), Memory()),
    (psiflow.Harmonic(variable=VOLUME, center=40.0, stiffness=0.02), Memory()),
    (psiflow.MovingHarmonic(variable=BOND, start=1.0, stop=3.0, steps=100, stiffness=2.0), Memory(step=30)),
    (psiflow.UpperWall(variable=BOND, edge=1.5, stiffness=4.0), Memory()),
    (psiflow.LowerWall(variable=VOLUME, edge=60.0, stiffness=0.02), Memory()),
    (
        psiflow.Grid(variables=(TORSION,), start=(-np.pi,), stop=(np.pi,), points=(24,), energies=table()),
        Memory(),
    ),
    (
        psiflow.Grid(
            variables=(BOND, VOLUME), start=(1.0, 30.0), stop=(4.0, 70.0), points=(12, 9), energies=plane(12, 9)
        ),
        Memory(),
    ),
    (
        psiflow.Metadynamics(variables=(BOND, TORSION), sigma=(0.3, 0.8), height=0.05),
        Memory(hills=HILLS),
    ),
    (psiflow.AseCalculator(calculator="emt", weight=0.25), Memory()),
]


@pytest.mark.parametrize(("bias", "memory"), BIASED, ids=lambda one: getattr(one, "name", ""))
@pytest.mark.parametrize("seed", [0, 1])
def test_forces_and_stress_are_derivatives_of_the_energy(bias: Bias, memory: Memory, seed: int) -> None:
    atoms = crystal(seed)
    answer = bias.evaluate(atoms, memory)
    assert answer.energy != 0.0
    forces = np.zeros((4, 3))
    for n in range(4):
        for axis in range(3):
            ends = [atoms.copy(), atoms.copy()]
            ends[0].positions[n, axis] += STEP
            ends[1].positions[n, axis] -= STEP
            ahead, behind = (bias.evaluate(end, memory).energy for end in ends)
            forces[n, axis] = -(ahead - behind) / (2 * STEP)
    assert answer.forces == pytest.approx(forces, rel=1e-6, abs=1e-7)
    stress = []
    for row, column in zip([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1], strict=True):
        mode = np.zeros((3, 3))
        mode[row, column] += 0.5
        mode[column, row] += 0.5
        ahead, behind = (bias.evaluate(strained(atoms, by * mode), memory).energy for by in (STEP, -STEP))
        stress.append((ahead - behind) / (2 * STEP) / atoms.get_volume())
    assert answer.stress == pytest.approx(stress, rel=1e-6, abs=1e-8)


def test_every_bias_is_tested_here() -> None:
    own = [one.component for one in registry().all() if one.distribution == "psiflow-core"]
    of_one_walker = {component for component in own if issubclass(component, Bias)}  # schemes: test_schemes.py
    assert {type(bias) for bias, _ in BIASED} == of_one_walker - {psiflow.Plumed}, "which has a library: test_plumed.py"


@pytest.mark.parametrize("bias", [bias for bias, _ in BIASED], ids=lambda bias: bias.name)
def test_a_bias_is_plain_data_and_comes_back(bias: Bias) -> None:
    assert one_of("bias", json.loads(json.dumps(bias.to_plain()))) == bias


def test_what_a_bias_remembers_is_plain_data_and_comes_back() -> None:
    hills, file = HILLS / 3, {"HILLS": "0.1\n0.2\n"}
    full = Memory(7, 3, origin=0.1 + 0.2, hills=hills, last=5, files=file, files_before={"HILLS": 4}, temperature=0.1)
    for memory in (Memory(), full):
        back = Memory.from_plain(json.loads(json.dumps(memory.to_plain())))
        assert np.array_equal(back.hills, memory.hills)
        assert {**vars(back), "hills": 0} == {**vars(memory), "hills": 0}


def test_a_molecule_has_no_stress_of_a_bias() -> None:
    assert psiflow.Harmonic(variable=BOND, center=2.0, stiffness=3.0).evaluate(molecule("H2"), Memory()).stress is None


# Each of them ----------------------------------------------------------------------------------------------


def dimer(length: float) -> Atoms:
    return Atoms("H2", [[0, 0, 0], [0, 0, length]])


LENGTHS = [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (psiflow.Harmonic(variable=BOND, center=1.0, stiffness=2.0), [0.25, 0.0, 1.0]),
        (psiflow.UpperWall(variable=BOND, edge=1.0, stiffness=2.0), [0.0, 0.0, 1.0]),
        (psiflow.LowerWall(variable=BOND, edge=1.0, stiffness=2.0), [0.25, 0.0, 0.0]),
    ],
)
def test_springs_and_walls_over_a_data_set(bias: Bias, expected: list[float]) -> None:
    assert values([dimer(length) for length in LENGTHS], bias) == pytest.approx(expected)


def test_a_restraint_moves_with_the_walkers_steps_and_stays_at_its_end() -> None:
    bias = psiflow.MovingHarmonic(variable=BOND, start=1.0, stop=2.0, steps=100, stiffness=1.0, after=50)
    centers = [bias.center(Memory(step=step)) for step in (50, 75, 150, 900)]
    assert centers == pytest.approx([1.0, 1.25, 2.0, 2.0])
    assert bias.evaluate(dimer(1.7), Memory(step=40)).energy == 0.0


def test_a_restraint_sets_out_from_where_the_walker_is_the_short_way_round() -> None:
    bias = psiflow.MovingHarmonic(variable=TORSION, stop=3.0, steps=100, stiffness=1.0)
    turned = Atoms("H4", [[1, 0, 0], [0, 0, 0], [0, 0, 1.5], [np.cos(-3.0), np.sin(-3.0), 1.5]])
    memory = bias.begin(Memory(), turned)
    assert memory.origin == pytest.approx(2 * np.pi - 3.0)
    assert bias.evaluate(turned, memory).energy == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_grid_has_its_energies_at_its_points_and_stays_at_its_edge(interpolation: Any) -> None:
    places = np.linspace(1.0, 2.0, 11)
    energies = np.sin(3 * places)
    grid = psiflow.Grid(
        variables=(BOND,), start=(1.0,), stop=(2.0,), points=(11,), energies=energies, interpolation=interpolation
    )
    assert values([dimer(place) for place in places], grid) == pytest.approx(energies)
    assert values([dimer(0.3), dimer(5.0)], grid) == pytest.approx(energies[[0, -1]])
    assert not grid.evaluate(dimer(5.0), Memory()).forces.any()
    between = values([dimer(1.234)], grid)[0]
    assert between == pytest.approx(np.sin(3 * 1.234), abs=1e-2 if interpolation == "linear" else 1e-4)


def test_a_grid_over_a_whole_turn_has_no_edge() -> None:
    grid = BIASED[6][0]
    assert isinstance(grid, psiflow.Grid)
    ends = [grid.of(np.array([angle]), Memory()) for angle in (np.pi - 1e-9, -np.pi + 1e-9, np.pi + 1e-9)]
    assert [energy for energy, _ in ends] == pytest.approx([ends[0][0]] * 3)
    assert [slope[0] for _, slope in ends] == pytest.approx([ends[0][1][0]] * 3, abs=1e-6)


def test_hills_become_lower_where_there_are_many() -> None:
    """Height W exp(−V / (kT (γ − 1))), after 100 steps each."""
    bias = psiflow.Metadynamics(variables=(BOND,), sigma=0.2, height=0.05, every=100, bias_factor=5.0)
    memory, at = Memory(), dimer(1.0)
    for step in (50, 100, 150, 200, 300):
        memory = bias.look(memory, at, step, 300.0)
    kt = units.kB * 300.0
    second = 0.05 * np.exp(-0.05 / (kt * 4))
    third = 0.05 * np.exp(-(0.05 + second) / (kt * 4))
    assert memory.hills == pytest.approx(np.array([[1.0, 0.05], [1.0, second], [1.0, third]]))
    assert bias.evaluate(at, memory).energy == pytest.approx(0.05 + second + third)
    flat = psiflow.Metadynamics(variables=(BOND,), sigma=0.2, height=0.05, every=100, bias_factor=None)
    assert flat.look(Memory(hills=memory.hills, last=300), at, 400, None).hills[-1, -1] == 0.05


def test_an_ase_calculator_is_added_with_its_weight() -> None:
    copper = crystal()
    expected = CalculatorPredictor(EMT()).predict([copper])[0]
    found = psiflow.AseCalculator(calculator="emt", weight=-0.5).evaluate(copper, Memory())
    assert found.energy == pytest.approx(-0.5 * expected.energy)
    assert found.forces == pytest.approx(-0.5 * expected.forces)
    assert found.stress == pytest.approx(-0.5 * np.asarray(expected.stress))


def test_sums_and_mixtures_of_potentials_biases_and_calculators_are_predictors() -> None:
    bias, copper = psiflow.Harmonic(variable=BOND, center=2.0, stiffness=1.0), crystal()
    emt = CalculatorPredictor(EMT())
    mixed = Sum([emt, bias, emt], weights=[0.3, 2.0, 0.7])
    answer, parts = mixed.predict([copper])[0], (emt.predict([copper])[0], bias.evaluate(copper, Memory()))
    assert answer.energy == pytest.approx(parts[0].energy + 2 * parts[1].energy)
    assert answer.forces == pytest.approx(parts[0].forces + 2 * parts[1].forces)
    assert answer.stress == pytest.approx(np.asarray(parts[0].stress) + 2 * np.asarray(parts[1].stress))
    with pytest.raises(ValueError, match="2 weights for 3 terms"):
        Sum([emt, emt, emt], weights=[1.0, 2.0])


def test_biases_are_added_and_multiplied_on_either_side() -> None:
    spring, copper = psiflow.Harmonic(variable=BOND, center=2.0, stiffness=1.0), crystal()
    wall = psiflow.UpperWall(variable=BOND, edge=1.0, stiffness=2.0)
    emt, first, second = EMT(), spring.evaluate(copper, Memory()), wall.evaluate(copper, Memory())
    for total in (spring + 0.5 * wall - emt, (wall / 2 + spring) - emt, 2 * (0.5 * spring + wall * 0.25) - emt):
        plain = CalculatorPredictor(emt).predict([copper])[0]
        answer = total.predict([copper])[0]
        assert answer.energy == pytest.approx(first.energy + 0.5 * second.energy - plain.energy)
        assert answer.forces == pytest.approx(first.forces + 0.5 * second.forces - plain.forces)
        assert answer.stress == pytest.approx(
            np.asarray(first.stress) + 0.5 * np.asarray(second.stress) - np.asarray(plain.stress)
        )


@pytest.mark.parametrize(
    "bias",
    [
        psiflow.Metadynamics(variables=[BOND], sigma=0.1, height=0.05),
        psiflow.MovingHarmonic(variable=BOND, stop=3.0, steps=100, stiffness=1.0),
    ],
    ids=lambda bias: bias.name,
)
def test_a_bias_that_remembers_its_walker_is_no_term_of_a_sum(bias: Bias) -> None:
    with pytest.raises(OptionError, match=f"bias '{bias.name}' remembers its walker.* give it as bias="):
        psiflow.sample(CalculatorPredictor(EMT()) + bias, psiflow.sampler("ase"), crystal(), 5)


# Of a walker -----------------------------------------------------------------------------------------------


class Free(Predictor):
    """No forces at all."""

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [
            Prediction(0.0, np.zeros((len(atoms), 3)), np.zeros(6) if atoms.pbc.all() else None) for atoms in structures
        ]


class Wells(Predictor):
    """Two wells of a dimer's length."""

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [Prediction(*wells.surface(atoms)) for atoms in structures]


def moved(
    sampler: Sampler,
    start: Atoms,
    potential: Predictor,
    biases: Sequence[Bias],
    steps: int,
    *,
    walkers: int = 1,
    check_every: int = 10,
    watch: Callable[[int, Atoms], None] = lambda step, atoms: None,
) -> list[WalkerBias]:
    """Walkers under biases, one after the other, each with a seed of its own."""
    found = []
    for number in range(walkers):
        walker = Walker(start)
        bias = WalkerBias(biases, walker, [], sampler.target_temperature())

        def monitor(step: int, atoms: Atoms) -> None:
            watch(step, atoms)

        forces = PredictorCalculator(potential, bias.over(lambda atoms: potential.predict([atoms])[0]))
        task = SamplingTask(steps, seed=number + chance.SEED_SHIFT, check_every=check_every)
        sampler.sample(walker, forces, task, remembering(monitor, bias))
        found.append(bias)
    return found


METADYNAMICS = psiflow.Metadynamics(variables=(BOND,), sigma=0.1, height=0.02, every=7)

HOT = psiflow.Metadynamics(variables=(BOND,), sigma=0.1, height=0.02, every=7, bias_factor=None)

ENSEMBLES = [
    ({"ensemble": "nve", "temperature": 500.0}, [HOT]),
    ({"temperature": 500.0}, [METADYNAMICS]),
    ({"thermostat": "bussi"}, [METADYNAMICS]),
    ({"ensemble": "npt", "pressure": 1.0}, [METADYNAMICS, psiflow.Harmonic(variable=VOLUME, center=45, stiffness=0.1)]),
    ({"ensemble": "npt", "barostat": "flexible"}, [METADYNAMICS]),
    ({}, [psiflow.MovingHarmonic(variable=BOND, stop=3.0, steps=30, stiffness=2.0)]),
    ({}, [psiflow.MovingHarmonic(variable=BOND, stop=3.0, steps=30, stiffness=2.0, after=14)]),
    ({}, [METADYNAMICS, psiflow.MovingHarmonic(variable=BOND, start=2.0, stop=3.0, steps=9, stiffness=2.0)]),
    ({"ensemble": "optimise", "fmax": 1e-9}, [psiflow.Harmonic(variable=BOND, center=2.2, stiffness=2.0)]),
]


@pytest.mark.parametrize(("options", "biases"), ENSEMBLES)
def test_a_segment_that_is_cut_goes_on_under_the_very_same_bias(options: dict[str, Any], biases: list[Bias]) -> None:
    sampler, potential = AseSampler(**options), CalculatorPredictor(EMT())

    def segment(walker: Walker, kept: Any, steps: int) -> tuple[Walker, Any]:
        bias = WalkerBias(biases, walker, kept, sampler.target_temperature())
        tasks = [SamplingTask(steps, seed=5, check_every=7)]
        (visit,) = sample_together(sampler, [walker], tasks, potential, potential, LIMITS, [bias])
        assert visit.segment, visit.error
        return visit.segment.walker, json.loads(json.dumps(bias.to_plain()))

    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    whole, memory = segment(Walker(copper), [], 42)
    walker, kept = Walker(copper), []
    for _ in range(3):
        walker, kept = segment(walker, kept, 14)
    assert kept == memory
    assert np.array_equal(walker.structure.positions, whole.structure.positions)
    assert np.array_equal(walker.structure.get_momenta(), whole.structure.get_momenta())
    assert np.array_equal(walker.structure.cell, whole.structure.cell)


def test_the_monitor_sees_no_bias_and_an_unsound_structure_leaves_no_hill() -> None:
    seen: list[float] = []

    class Watched(Free):
        def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
            seen.extend(atoms.get_distance(0, 1) for atoms in structures)
            return super().predict(structures)

    walker = Walker(dimer(0.9))
    spring = psiflow.Harmonic(variable=BOND, center=3.0, stiffness=20.0)
    hills = psiflow.Metadynamics(variables=(BOND,), sigma=0.1, height=1e-3, every=5, bias_factor=None)
    bias = WalkerBias([spring, hills], walker, [], None)
    sampler = AseSampler(ensemble="nve", temperature=1e-6)
    limits = Limits(force=1e-6, distance=0.5)
    tasks = [SamplingTask(400, seed=1, check_every=5)]
    (visit,) = sample_together(sampler, [walker], tasks, Free(), Watched(), limits, [bias])
    assert visit.segment
    assert visit.most_uncertain
    assert not visit.most_uncertain.prediction.forces.any(), "its forces are the committee's"
    assert visit.segment.stopped is None, "no force ceiling is reached by a spring of 40 eV/Å"
    assert max(seen) > 3.0
    assert len(bias.memories[1].hills) == 80

    close = WalkerBias([hills], walker, [], None)
    sample_together(sampler, [walker], tasks, Free(), Free(), Limits(distance=1.5), [close])
    assert not len(close.memories[0].hills)


def test_a_bias_that_is_not_finite_explodes_the_walker() -> None:
    bias = WalkerBias([psiflow.Harmonic(variable=BOND, center=1e200, stiffness=1e200)], Walker(dimer(1.0)), [], None)
    with pytest.raises(WalkerExploded, match="of a bias are not finite"):
        bias.added(dimer(1.0), Prediction(0.0, np.zeros((2, 3))))


# Distributions ---------------------------------------------------------------------------------------------


def moments(energy: Array, places: Array, measure: Array, temperature: float) -> tuple[float, float]:
    """Mean and variance of the density measure × exp(−U/kT), by quadrature."""
    weight = measure * np.exp(-(energy - energy.min()) / (units.kB * temperature))
    weight /= weight.sum()
    mean = float(weight @ places)
    return mean, float(weight @ (places - mean) ** 2)


def assert_moments(seen: Sequence[Sequence[float]], mean: float, variance: float, finds: tuple[float, float]) -> None:
    """What walkers saw has this mean and variance; `finds` in standard deviations, and parts of the variance."""
    values = np.concatenate([chance.blocks(series, 8) for series in seen])
    chance.assert_mean(values, mean, finds=finds[0] * np.sqrt(variance))
    squares = np.concatenate([chance.blocks((np.array(series) - mean) ** 2, 8) for series in seen])
    chance.assert_mean(squares, variance, finds=finds[1] * variance)


def test_a_restrained_ideal_dimer_has_the_distances_that_it_must_have() -> None:
    """p(r) ~ r² exp(−U/kT): without the measure r² the mean would be 0.1 Å less."""
    spring = psiflow.Harmonic(variable=BOND, center=1.0, stiffness=0.5)
    seen: list[list[float]] = []

    def watch(step: int, atoms: Atoms) -> None:
        if step == 5:
            seen.append([])
        if step > 500:
            seen[-1].append(atoms.get_distance(0, 1))

    moved(
        AseSampler(timestep=3.0, friction=50.0),
        dimer(1.1),
        Free(),
        [spring],
        2000,
        walkers=6,
        watch=watch,
        check_every=5,
    )
    places = np.linspace(1e-4, 4.0, 4000)
    assert_moments(seen, *moments(0.25 * (places - 1.0) ** 2, places, places**2, 300.0), finds=(0.4, 0.6))


@pytest.mark.parametrize("barostat", ["isotropic"])
def test_an_ideal_gas_under_a_volume_restraint_has_the_volumes_that_it_must_have(barostat: Any) -> None:
    """p(V) ~ V^N exp(−(PV + ½k(V − V₀)²)/kT): bias and barostat together."""
    number, pressure, spring = 3, 1500.0, psiflow.Harmonic(variable=VOLUME, center=180.0, stiffness=2e-5)
    gas = Atoms(f"Ar{number}", np.zeros((number, 3)), cell=[5.4] * 3, pbc=True)
    sampler = AseSampler(
        ensemble="npt", pressure=pressure, barostat=barostat, barostat_time=30.0, friction=20.0, timestep=4.0
    )
    seen: list[list[float]] = []

    def watch(step: int, atoms: Atoms) -> None:
        if step == 5:
            seen.append([])
        if step > 300:
            seen[-1].append(atoms.get_volume())

    moved(sampler, gas, Free(), [spring], 1700, walkers=6, watch=watch, check_every=5)
    places = np.linspace(1.0, 2000.0, 20_000)
    energy = pressure * units.bar * places + 1e-5 * (places - 180.0) ** 2
    assert_moments(seen, *moments(energy, places, places**number, 300.0), finds=(0.4, 0.8))


def test_metadynamics_finds_the_barrier_between_two_wells() -> None:
    """No walker would cross it by itself: it is 7 kT high.

    Runs that end, of hills that are not points, miss the exact free energy, by about 10 meV here. A textbook's
    metadynamics misses it by as much, so that nothing but chance is between the two.
    """
    hills = psiflow.Metadynamics(variables=(BOND,), sigma=0.1, height=0.01, every=10, bias_factor=3.0)
    start = Atoms("He2", [[0, 0, 0], [0, 0, 1.5]])
    walkers = moved(AseSampler(timestep=3.0, friction=10.0), start, Wells(), [hills], 4000, walkers=8)
    free = [hills.free_energy(one.memories[0].hills, wells.PLACES[:, None]) for one in walkers]
    textbook = wells.metadynamics(hills, start, timestep=3.0, friction=10.0, steps=4000, walkers=256)
    for found, right in zip(wells.barriers(free).T, wells.barriers(textbook).T, strict=True):
        chance.assert_alike(found, right, finds=0.055)  # the third that −γ/(γ − 1) adds to −V
    exact = wells.energy(wells.PLACES) - 2 * units.kB * 300.0 * np.log(wells.PLACES)
    assert wells.barriers(textbook).mean(axis=0) == pytest.approx(wells.barriers(exact), abs=units.kB * 300.0)


# Wrong input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: psiflow.Harmonic(variable=BOND, center=1.0, stiffness=-1.0), r"stiffness=-1\.0"),
        (lambda: psiflow.Harmonic(variable=BOND, center=float("nan"), stiffness=1.0), "center=nan"),
        (
            lambda: psiflow.Metadynamics(variables=(BOND, VOLUME), sigma=(0.1,), height=0.1),
            "bias 'metadynamics': 1 widths in sigma for 2 variables; give one for each",
        ),
        (lambda: psiflow.Metadynamics(variables=(BOND,) * 4, sigma=(1,) * 4, height=0.1), "variables="),
        (lambda: psiflow.Metadynamics(variables=(BOND,), sigma=0.1, height=0.1, bias_factor=1), "bias_factor=1"),
        (lambda: psiflow.UpperWall(variable=TORSION, edge=1.0, stiffness=1.0), "'dihedral' turns round"),
        (
            lambda: psiflow.Grid(variables=(BOND,), start=(0,), stop=(1,), points=(5,), energies=(0.0,) * 4),
            "4 energies for 5 points",
        ),
        (
            lambda: psiflow.Grid(variables=(BOND,), start=(0,), stop=(1,), points=(3,), energies=(0.0,) * 3),
            "a cubic grid needs 4 at least",
        ),
        (
            lambda: psiflow.Grid(variables=(BOND,), start=(1,), stop=(1,), points=(4,), energies=(0.0,) * 4),
            "must be below stop",
        ),
        (
            lambda: psiflow.Grid(
                variables=(TORSION,), start=(-np.pi,), stop=(np.pi,), points=(4,), energies=(0.0, 1.0, 2.0, 3.0)
            ),
            "energies at both ends must be the same",
        ),
        (lambda: one_of("bias", {"name": "harmonc"}), "no bias 'harmonc'. Did you mean 'harmonic'"),
        (lambda: one_of("bias", {"name": "harmonic", "centre": 1}), "unknown option 'centre'. Did you mean 'center'"),
    ],
)
def test_wrong_options_are_told(make: Any, says: str) -> None:
    with pytest.raises((OptionError, PluginNotFound), match=says):
        make()


def test_what_does_not_work_on_a_worker_is_told() -> None:
    water = [molecule("H2O")]
    with pytest.raises(OptionError, match="bias_factor needs a sampler with a temperature"):
        METADYNAMICS.try_out(water, None)
    METADYNAMICS.try_out(water, 300.0)
    missing = psiflow.Harmonic(variable=psiflow.Function(function="not_there:cv"), center=0, stiffness=1)
    with pytest.raises(OptionError, match="'not_there:cv' cannot be imported on the worker"):
        missing.try_out(water, 300.0)
    with pytest.raises(OptionError, match=r"calculator='emtt': no such calculator\. Did you mean 'emt'"):
        psiflow.AseCalculator(calculator="emtt").try_out(water, 300.0)
    with pytest.raises(OptionError, match="there is no atom 5 in H2O"):
        psiflow.Harmonic(variable=psiflow.Distance(atoms=(0, 5)), center=1, stiffness=1).check(water)


def test_a_bias_without_a_stress_is_not_left_out_of_the_virial() -> None:
    """A barostat would take the cell for one on which the bias does not act."""

    class Silent(psiflow.AseCalculator):
        def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
            return replace(super().evaluate(structure, memory), stress=None)

    copper = bulk("Cu", cubic=True)
    walker = WalkerBias([Silent(calculator="emt")], Walker(copper), [], 300.0)
    (alone,) = CalculatorPredictor(EMT()).predict([copper])
    assert alone.stress is not None
    assert walker.added(copper, alone).stress is None
