"""Each ensemble has the averages that statistical mechanics says it has."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from psiflow_openmm_sampler.sampler import OpenMM
from psiflow_toys import chance
from scipy.special import digamma


@pytest.mark.parametrize("thermostat", ["langevin", "nose-hoover"])
def test_light_and_heavy_atoms_share_the_kinetic_energy_equally(thermostat, crystal, argon, move):
    """Σ p²/m over the atoms of a class is 3kT Σ (1 - m/M) where the centre of mass rests, 3kT n where not."""
    liquid, momenta = crystal, []
    liquid.set_cell(np.array(liquid.cell) * 1.12, scale_atoms=True)
    liquid.set_masses(np.where(np.arange(32) % 2, 40.0, 20.0))
    masses = liquid.get_masses()
    sampler = OpenMM(temperature=200.0, timestep=4.0, thermostat=thermostat, friction=10.0)
    warm = move(sampler, liquid, argon, 1000)
    move(sampler, warm.walker, argon, 4000, monitor=lambda step, atoms: momenta.append(atoms.get_momenta()))
    energies = (np.array(momenta) ** 2 / masses[:, None]) / units.kB
    shares = 1 - masses / masses.sum() if thermostat == "nose-hoover" else np.ones(32)
    for chosen in (masses < 30, masses > 30):
        for axis in range(3):
            temperatures = energies[:, chosen, axis].sum(axis=1) / shares[chosen].sum()
            chance.assert_mean(chance.blocks(temperatures), 200, finds=0.4 * 200)


def test_nose_hoover_keeps_the_centre_of_mass_at_rest(crystal, argon, move):
    sampler = OpenMM(temperature=60.0, timestep=4.0, thermostat="nose-hoover")
    segment = move(sampler, crystal, argon, 200)
    assert np.abs(segment.walker.structure.get_momenta().sum(axis=0)).max() < 1e-9
    drift = segment.walker.structure.get_center_of_mass() - crystal.get_center_of_mass()
    assert np.abs(drift).max() < 1e-9


def test_a_harmonic_oscillator_spreads_as_temperature_over_stiffness(trap, move):
    """<x²> = kT/k, also at a time step that is a seventh of the oscillation's 91 fs."""
    positions = []
    oscillators = Atoms(numbers=[10] * 64, positions=np.zeros((64, 3)))
    sampler = OpenMM(temperature=300.0, timestep=13.0, friction=60.0)
    warm = move(sampler, oscillators, trap, 100)
    move(sampler, warm.walker, trap, 3000, monitor=lambda step, atoms: positions.append(atoms.positions))
    expected = units.kB * 300 / trap.stiffness
    chance.assert_mean(chance.blocks((np.array(positions) ** 2).mean(axis=(1, 2))), expected, finds=0.06 * expected)


@pytest.mark.parametrize("barostat", ["isotropic", "anisotropic", "flexible"])
def test_an_ideal_gas_has_the_gamma_distribution_of_volumes(barostat, elastic_gas, move):
    """p(V) ~ V^N exp(-PV/kT): <V> = (N+1)kT/P and <ln V> = ψ(N+1) + ln(kT/P), whatever the shape costs."""
    atoms, volumes = 2, []
    gas = Atoms(f"Ar{atoms}", cell=np.eye(3) * 14, pbc=True, positions=np.zeros((atoms, 3)))
    bath = {"temperature": 300.0, "pressure": 41.4}
    sampler = OpenMM(ensemble="npt", barostat=barostat, barostat_frequency=1, **bath)
    warm = move(sampler, gas, elastic_gas, 500)
    watch = {"check_every": 2, "monitor": lambda step, now: volumes.append(now.get_volume())}
    move(sampler, warm.walker, elastic_gas, 14_000, **watch)
    scale = units.kB * 300 / (41.4 * units.bar)
    seen = np.array(volumes) / scale
    chance.assert_mean(chance.blocks(seen), atoms + 1, finds=1.2)
    chance.assert_mean(chance.blocks(np.log(seen)), digamma(atoms + 1), finds=digamma(atoms + 1) - digamma(atoms))


def test_dense_argon_has_the_density_of_an_independent_monte_carlo_walk(argon, move):
    fluid, temperature, pressure, volumes = dense_fluid(), 240.0, 400.0, []
    bath = {"temperature": temperature, "pressure": pressure, "friction": 5.0}
    sampler = OpenMM(ensemble="npt", timestep=8.0, barostat_frequency=4, **bath)
    warm = move(sampler, fluid, argon, 500)
    move(sampler, warm.walker, argon, 6000, monitor=lambda step, atoms: volumes.append(atoms.get_volume()))
    walk = metropolis(fluid, argon.pair, temperature, pressure, sweeps=1100)
    chance.assert_mean(chance.blocks(volumes) - chance.blocks(walk[100:]), 0.0, finds=0.15 * np.mean(volumes))


def dense_fluid() -> Atoms:
    """32 atoms at about a quarter of σ⁻³, on a lattice to begin with."""
    grid = np.array([(i, j, k) for i in range(4) for j in range(4) for k in range(2)], float)
    return Atoms("Ar32", scaled_positions=grid / (4, 4, 2), cell=np.eye(3) * 17.5, pbc=True)


def metropolis(atoms: Atoms, pair, temperature: float, pressure: float, sweeps: int) -> list[float]:
    """Volumes of a textbook NPT walk: single atoms, then V ± ΔV accepted with N ln(V'/V) (Frenkel & Smit)."""
    random, thermal = np.random.default_rng(3 + chance.SEED_SHIFT), units.kB * temperature
    count, length, scaled, volumes = len(atoms), atoms.cell[0, 0], atoms.get_scaled_positions(), []

    def energies(one: np.ndarray, others: np.ndarray, edge: float) -> np.ndarray:
        apart = one - others
        return pair(np.linalg.norm((apart - np.round(apart)) * edge, axis=-1))[0]

    def total(edge: float) -> float:
        return sum(energies(scaled[i], scaled[i + 1 :], edge).sum() for i in range(count - 1))

    for _ in range(sweeps):
        for i in random.integers(count, size=count):
            others = np.delete(scaled, i, axis=0)
            trial = scaled[i] + random.uniform(-1.2, 1.2, 3) / length
            rise = (energies(trial, others, length) - energies(scaled[i], others, length)).sum()
            if random.random() < np.exp(-rise / thermal):
                scaled[i] = trial
        old = length**3
        new = old + random.uniform(-0.15, 0.15) * 5000
        longer = np.cbrt(new)
        work = total(longer) - total(length) + pressure * units.bar * (new - old)
        if random.random() < np.exp(-work / thermal + count * np.log(new / old)):
            length = longer
        volumes.append(length**3)
    return volumes
