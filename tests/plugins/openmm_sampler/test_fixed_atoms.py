"""Fixed atoms in OpenMM: exactly where they were, without a share of the heat, and with their forces kept."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from psiflow_openmm_sampler.sampler import OpenMM
from psiflow_toys import chance

from psiflow_core.constraints import fix, fixed_atoms
from psiflow_core.structures import label_of


@pytest.fixture
def slab() -> Atoms:
    """Two layers of copper under an oxygen atom; the lower one is fixed."""
    copper = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(copper, "O", 1.2, "fcc")
    fix(copper, np.flatnonzero(copper.get_tags() == 2))
    return copper


@pytest.mark.parametrize("thermostat", ["langevin", "nose-hoover"])
def test_each_free_atom_has_its_share_of_heat(thermostat, crystal, argon, move):
    """Equipartition over 3 degrees of freedom for each: the fixed atoms hold the centre of mass."""
    fix(crystal, np.arange(0, 32, 4))
    free, places = ~fixed_atoms(crystal), crystal.positions.copy()
    masses = np.where(np.arange(32) % 2, 39.948, 20.18)
    crystal.set_masses(masses)
    sampler, momenta = OpenMM(temperature=60.0, timestep=8.0, friction=4.0, thermostat=thermostat), []
    warm = move(sampler, crystal, argon, 500)

    def watch(step, atoms):
        momenta.append(atoms.get_momenta())
        assert np.array_equal(atoms.positions[~free], places[~free])

    segment = move(sampler, warm.walker, argon, 6000, monitor=watch)
    seen = np.array(momenta)
    assert not seen[:, ~free].any()
    for chosen in (free & (masses < 30), free & (masses > 30)):
        kelvins = (seen[:, chosen] ** 2 / masses[chosen, None]).mean(axis=(1, 2)) / units.kB
        chance.assert_mean(chance.blocks(kelvins), 60.0, finds=0.25 * 60.0)  # a fourth of the atoms is fixed
    kelvins = (seen[:, free] ** 2 / masses[free, None]).mean(axis=(1, 2)) / units.kB
    assert segment.averages["temperature"] == pytest.approx(kelvins.mean())


def test_energy_is_conserved_with_fixed_atoms(crystal, argon, move):
    """It fluctuates with the square of the time step, as without them."""
    fix(crystal, np.arange(10))
    warm, spread = move(OpenMM(ensemble="nve", temperature=120.0, timestep=4.0), crystal, argon, 300).walker, {}
    for timestep, steps in ((8.0, 500), (4.0, 1000)):
        sampler = OpenMM(ensemble="nve", timestep=timestep)
        frames = move(sampler, warm, argon, steps, stride=5).frames
        spread[timestep] = np.std([frame.get_total_energy() for frame in frames])
        assert spread[timestep] < 0.02 * np.std([frame.get_kinetic_energy() for frame in frames])
    assert 3 < spread[8.0] / spread[4.0] < 5


def test_the_centre_of_mass_of_the_free_atoms_moves(crystal, argon, move):
    fix(crystal, [0])
    for thermostat in ("langevin", "nose-hoover"):
        end = move(OpenMM(temperature=60.0, thermostat=thermostat), crystal, argon, 20).walker.structure
        assert np.abs(end.get_momenta().sum(axis=0)).max() > 1e-3


def test_minimisation_moves_free_atoms_and_is_judged_by_them(slab, move):
    """It ends where ASE's BFGS ends with the same constraint, though fixed atoms still feel forces."""
    slab.rattle(0.1, seed=4)
    fixed = fixed_atoms(slab)
    ours = move(OpenMM(ensemble="minimise", tolerance=0.005), slab, EMT(), 300, stride=1)
    theirs = slab.copy()
    theirs.calc = EMT()
    BFGS(theirs, logfile=None).run(fmax=0.005)
    last = ours.frames[-1]
    assert ours.finished
    assert last.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-3)
    forces = np.linalg.norm(label_of(last).forces, axis=1)
    assert forces[~fixed].max() <= 0.005 < forces[fixed].max()
    for frame in (*ours.frames, ours.walker.structure):
        assert np.array_equal(frame.positions[fixed], slab.positions[fixed])


def test_momenta_that_fixed_atoms_are_given_are_forgotten(slab, move):
    slab.arrays["momenta"] = np.full((len(slab), 3), 3.0)
    for sampler in (OpenMM(ensemble="nve"), OpenMM(temperature=300.0), OpenMM(ensemble="minimise")):
        end = move(sampler, slab, EMT(), 2).walker.structure
        assert not end.get_momenta()[fixed_atoms(slab)].any()
        assert end.get_momenta()[~fixed_atoms(slab)].any()
