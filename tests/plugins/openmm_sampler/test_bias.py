"""Bias, thermostat and barostat together: the distributions that statistical mechanics prescribes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms, units
from psiflow_openmm_sampler.sampler import OpenMM
from psiflow_toys import chance, wells

import psiflow_core as psiflow
from psiflow_core.components import CalculatorPredictor, Memory, PredictorCalculator, SamplingTask, Walker
from psiflow_core.sampling.bias import WalkerBias
from psiflow_core.sampling.monitor import remembering

BOND = psiflow.Distance(atoms=(0, 1))
VOLUME = psiflow.Volume()
KT = units.kB * 300.0


def biased(sampler, walker, calculator, biases, steps, kept=(), **task):
    """One segment of a walker under biases: what it came to, and what they remember."""
    watch = task.pop("watch", lambda step, atoms: None)
    potential = CalculatorPredictor(calculator)
    bias = WalkerBias(biases, walker, list(kept), sampler.target_temperature())
    forces = PredictorCalculator(potential, bias.over(lambda atoms: potential.predict([atoms])[0]))
    seed = task.pop("seed", 7) + chance.SEED_SHIFT
    segment = sampler.sample(walker, forces, SamplingTask(steps, seed=seed, **task), remembering(watch, bias))
    return segment, bias


def moments(energy, places, measure):
    """Mean and variance of the density measure × exp(−U/kT), by quadrature."""
    weight = measure * np.exp(-(energy - energy.min()) / KT)
    weight /= weight.sum()
    mean = weight @ places
    return mean, weight @ (places - mean) ** 2


def agrees(seen, energy, places, measure, finds):
    """Mean and variance are what they must be; `finds` in standard deviations, and parts of the variance."""
    values = np.array(seen)
    mean, variance = moments(energy, places, measure)
    chance.assert_mean(chance.blocks(values), mean, finds=finds[0] * np.sqrt(variance))
    chance.assert_mean(chance.blocks((values - mean) ** 2), variance, finds=finds[1] * variance)


@pytest.mark.parametrize("barostat", ["isotropic", "anisotropic", "flexible"])
def test_an_ideal_gas_under_a_volume_restraint(barostat, elastic_gas):
    """p(V) ~ V^N exp(−(PV + ½k(V − V₀)²)/kT), whatever the shape costs."""
    pressure, center, stiffness, seen = 41.4, 1500.0, 1e-7, []
    gas = Atoms("Ar2", cell=np.eye(3) * 12, pbc=True, positions=np.zeros((2, 3)))
    sampler = OpenMM(ensemble="npt", barostat=barostat, barostat_frequency=1, temperature=300.0, pressure=pressure)
    spring = psiflow.Harmonic(variable=VOLUME, center=center, stiffness=stiffness)
    warm, _ = biased(sampler, Walker(gas), elastic_gas, [spring], 500)
    watch = {"check_every": 2, "watch": lambda step, atoms: seen.append(atoms.get_volume())}
    biased(sampler, warm.walker, elastic_gas, [spring], 6000, **watch)
    places = np.linspace(1.0, 12_000.0, 12_000)
    energy = pressure * units.bar * places + 0.5 * stiffness * (places - center) ** 2
    agrees(seen, energy, places, places**2, finds=(0.6, 1.0))


def test_a_pair_that_a_restraint_binds_is_one_particle_to_the_barostat(ideal_gas):
    """p(r) ~ r² exp(−U(r)/kT) as without a barostat, and p(V) ~ V^(N−1) exp(−PV/kT) for N = 2: one is bound."""
    pressure, distances, volumes = 41.4, [], []
    gas = Atoms("He2", cell=np.eye(3) * 12, pbc=True, positions=[[0, 0, 0], [11.0, 0, 0]])
    bath = {"temperature": 300.0, "friction": 30.0, "timestep": 4.0}
    sampler = OpenMM(ensemble="npt", barostat_frequency=1, pressure=pressure, **bath)
    spring = psiflow.Harmonic(variable=BOND, center=1.0, stiffness=1.0)

    def watch(step, atoms):
        distances.append(atoms.get_distance(0, 1, mic=True))
        volumes.append(atoms.get_volume())

    warm, _ = biased(sampler, Walker(gas), ideal_gas, [spring], 500)
    biased(sampler, warm.walker, ideal_gas, [spring], 12_000, check_every=4, watch=watch)
    near = np.linspace(1e-4, 4.0, 4000)
    agrees(distances, 0.5 * (near - 1.0) ** 2, near, near**2, finds=(0.6, 0.7))
    places = np.linspace(1.0, 30_000.0, 30_000)
    thermal = pressure * units.bar * places
    # Two particles would have 3 kT/P where 2 kT/P is right.
    agrees(volumes, thermal, places, places, finds=(np.sqrt(0.5), 1.5))


def test_metadynamics_finds_the_barrier_between_two_wells(toy):
    """As a textbook's metadynamics of the same length finds it, so that nothing but chance is between the two."""
    double = type("Double", (toy,), {"surface": lambda self, atoms: wells.surface(atoms)})
    hills = psiflow.Metadynamics(variables=(BOND,), sigma=0.1, height=0.01, every=10, bias_factor=3.0)
    sampler = OpenMM(temperature=300.0, timestep=3.0, friction=10.0)
    start = Atoms("He2", [[0, 0, 0], [0, 0, 1.5]])
    free = []
    for seed in range(8):
        _, bias = biased(sampler, Walker(start), double(), [hills], 4000, seed=seed)
        free.append(hills.free_energy(bias.memories[0].hills, wells.PLACES[:, None]))
    textbook = wells.metadynamics(hills, start, timestep=3.0, friction=10.0, steps=4000, walkers=256)
    for found, right in zip(wells.barriers(free).T, wells.barriers(textbook).T, strict=True):
        chance.assert_alike(found, right, finds=0.055)  # the third that −γ/(γ − 1) adds to −V


PRESS = {"temperature": 80.0, "timestep": 4.0, "ensemble": "npt", "pressure": 50.0, "barostat_frequency": 7}
BIASES = [
    psiflow.Metadynamics(variables=(BOND, VOLUME), sigma=(0.2, 100.0), height=0.01, every=10),
    psiflow.MovingHarmonic(variable=BOND, stop=4.5, steps=50, stiffness=0.2, after=20),
]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 80.0, "timestep": 4.0},
        {"temperature": 80.0, "timestep": 4.0, "thermostat": "nose-hoover"},
        PRESS,
        {**PRESS, "barostat": "flexible", "thermostat": "nose-hoover"},
    ],
)
def test_a_segment_that_is_cut_goes_on_under_the_very_same_bias(options, crystal, argon):
    sampler = OpenMM(**options)
    whole, memory = biased(sampler, Walker(crystal), argon, BIASES, 90)
    assert len(memory.memories[0].hills) == 9
    walker, kept = Walker(crystal), []
    for steps in (20, 40, 30):
        segment, bias = biased(sampler, walker, argon, BIASES, steps, kept)
        walker, kept = segment.walker, json.loads(json.dumps(bias.to_plain()))
    assert kept == memory.to_plain()
    for one, other in zip((walker.structure, walker.state), (whole.walker.structure, whole.walker.state), strict=True):
        assert one == other
    assert np.array_equal(walker.structure.positions, whole.walker.structure.positions)
    assert np.array_equal(walker.structure.cell, whole.walker.structure.cell)


def test_a_minimisation_under_a_restraint_ends_where_potential_and_spring_balance(trap):
    """Two atoms on springs K at the origin, ½k(r − r₀)² between them: r = r₀ k / (k + K/2)."""
    sampler = OpenMM(ensemble="minimise", tolerance=1e-4)
    spring = psiflow.Harmonic(variable=BOND, center=1.0, stiffness=3.0)
    walker = Walker(Atoms("Ne2", [[0.1, 0, 0], [-0.3, 0.2, 0]]))
    segment, _ = biased(sampler, walker, trap, [spring], 100)
    assert segment.finished
    expected = 3.0 / (3.0 + trap.stiffness / 2)
    assert segment.walker.structure.get_distance(0, 1) == pytest.approx(expected, abs=1e-3)
    assert spring.of(np.array([expected]), Memory())[0] > 0
