"""Newton's equations, cells and minima."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from psiflow_openmm_sampler._minimisation import NoWayDown
from psiflow_openmm_sampler.sampler import OpenMM

from psiflow_core.components import Walker

NVE = OpenMM(ensemble="nve", temperature=80.0, timestep=4.0)


def test_without_a_bath_the_trajectory_is_that_of_ase(cluster, argon, move):
    """Both are velocity Verlet, so positions, momenta and energies agree to rounding."""
    start = move(NVE, cluster, argon, 10).walker.structure
    segment = move(NVE, start, argon, 200, stride=200)
    theirs = start.copy()
    theirs.calc = argon
    VelocityVerlet(theirs, 4.0 * units.fs).run(200)
    np.testing.assert_allclose(segment.walker.structure.positions, theirs.positions, atol=1e-8)
    np.testing.assert_allclose(segment.walker.structure.get_momenta(), theirs.get_momenta(), atol=1e-7)
    assert segment.frames[0].get_total_energy() == pytest.approx(theirs.get_total_energy(), abs=1e-9)


def test_without_a_bath_the_energy_neither_drifts_nor_strays(crystal, argon, move):
    """It fluctuates with the square of the time step, and 12 ps move its mean by less than that."""
    warm = move(NVE, crystal, argon, 500).walker
    spread = {}
    for timestep, steps in ((8.0, 1500), (4.0, 3000)):
        sampler = NVE.model_copy(update={"timestep": timestep})
        frames = move(sampler, warm, argon, steps, stride=10).frames
        energies = np.array([frame.get_total_energy() for frame in frames])
        spread[timestep] = np.std(energies)
        early, late = np.array_split(energies, 2)
        assert abs(late.mean() - early.mean()) < spread[timestep]
        assert spread[timestep] < 0.02 * np.std([frame.get_kinetic_energy() for frame in frames])
    assert 3 < spread[8.0] / spread[4.0] < 5


def skewed(kind: str) -> Atoms:
    atoms = bulk("Ar", cubic=True, a=5.6) * (3, 3, 3)
    shear = np.array([[1, 0, 0], [0.2, 1, 0], [-0.1, 0.15, 1]])
    atoms.set_cell(np.array(atoms.cell) @ shear, scale_atoms=True)
    if kind == "left-handed":
        atoms.set_cell(np.array(atoms.cell)[[1, 0, 2]])
    atoms.rattle(0.05, seed=4)
    return atoms


@pytest.mark.parametrize("kind", ["right-handed", "left-handed"])
@pytest.mark.parametrize("barostat", [None, "isotropic", "anisotropic", "flexible"])
def test_a_rotated_triclinic_cell_gives_the_rotated_trajectory(kind, barostat, argon, move):
    """So forces, cell and momenta stay in the frame of the structure that was given.

    (A flexible cell is strained along fixed axes, so it only has to keep its handedness and orientation.)
    """
    start = move(NVE, skewed(kind), argon, 5).walker.structure
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = start.copy()
    turned.set_cell(np.array(start.cell) @ turn)
    turned.positions = start.positions @ turn
    turned.set_momenta(start.get_momenta() @ turn)
    sampler = NVE
    if barostat:
        # Nosé-Hoover has no random kicks, which would not turn with the structure.
        bath = {"temperature": 80.0, "pressure": 100.0, "thermostat": "nose-hoover"}
        sampler = OpenMM(ensemble="npt", timestep=4.0, barostat=barostat, barostat_frequency=5, **bath)
    here, there = (move(sampler, atoms, argon, 60).walker.structure for atoms in (start, turned))
    if barostat == "flexible":
        rotation = np.linalg.solve(start.cell, there.cell @ turn.T)
        np.testing.assert_allclose(rotation, np.eye(3), atol=0.2)
        np.testing.assert_allclose(rotation, rotation.T, atol=0.2)
        return
    np.testing.assert_allclose(there.positions, here.positions @ turn, atol=1e-6)
    np.testing.assert_allclose(there.cell, np.array(here.cell) @ turn, atol=1e-6)
    np.testing.assert_allclose(there.get_momenta(), here.get_momenta() @ turn, atol=1e-5)


def test_in_a_rotated_triclinic_cell_the_energy_is_conserved(argon, move):
    atoms = skewed("right-handed")
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    frames = move(NVE, atoms, argon, 400, stride=10).frames
    total = np.array([frame.get_total_energy() for frame in frames])
    kinetic = np.array([frame.get_kinetic_energy() for frame in frames])
    assert np.ptp(kinetic) > 0.1
    assert np.ptp(total) < 0.01 * np.ptp(kinetic)


def test_atoms_that_leave_the_cell_are_not_wrapped(ideal_gas, move):
    atoms = Atoms("Ar", cell=[3, 3, 3], pbc=True, positions=[[1, 1, 1]], momenta=[[40.0, 0, 0]])
    segment = move(NVE, atoms, ideal_gas, 500)
    travelled = 40.0 / atoms.get_masses()[0] * 500 * 4.0 * units.fs
    assert travelled > 30
    assert segment.walker.structure.positions[0, 0] == pytest.approx(1 + travelled)


def test_a_slab_moves_in_its_two_directions(argon, move):
    slab = bulk("Ar", cubic=True, a=5.6) * (3, 3, 1)
    slab.center(vacuum=10, axis=2)
    slab.pbc = (True, True, False)
    segment = move(NVE, slab, argon, 50, stride=10)
    energies = [frame.get_total_energy() for frame in segment.frames]
    assert np.ptp(energies) < 1e-3
    assert list(segment.walker.structure.pbc) == [True, True, False]
    assert "volume" not in segment.averages


def test_first_momenta_have_the_temperature_and_leave_the_centre_of_mass_at_rest(ideal_gas, move):
    atoms = Atoms("ArNe" * 500, positions=np.zeros((1000, 3)))
    momenta = move(NVE, atoms, ideal_gas, 1).walker.structure.get_momenta()
    masses = atoms.get_masses()
    for symbol in ("Ar", "Ne"):
        chosen = atoms.symbols == symbol
        shares = momenta[chosen] ** 2 / masses[chosen, None] / (units.kB * 80)
        assert shares.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 1500))
    assert np.abs(momenta.sum(axis=0)).max() < 1e-9


def test_minimisation_ends_in_the_minimum_that_ase_finds(move):
    start = bulk("Cu", cubic=True) * (2, 1, 1)
    start.rattle(0.15, seed=6)
    ours = move(OpenMM(ensemble="minimise", tolerance=0.005), start, EMT(), 200, stride=1)
    theirs = start.copy()
    theirs.calc = EMT()
    BFGS(theirs, logfile=None).run(fmax=0.005)
    assert ours.finished
    assert ours.frames[-1].get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-4)
    assert np.linalg.norm(ours.frames[-1].get_forces(), axis=1).max() <= 0.005
    energies = [frame.get_potential_energy() for frame in ours.frames]
    assert energies == sorted(energies, reverse=True)


def test_minimisation_can_be_interrupted_and_taken_up_again(cluster, argon, move):
    sampler = OpenMM(ensemble="minimise", tolerance=1e-4)
    first = move(sampler, cluster, argon, 3)
    assert (first.steps, first.finished, first.walker.step) == (3, False, 3)
    second = move(sampler, first.walker, argon, 500)
    assert second.finished
    again = move(sampler, second.walker, argon, 500)
    assert (again.steps, again.finished) == (0, True)


class Kinked(Calculator):
    """A wedge: the force does not vanish towards its edge, so that nothing converges there."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        heights = np.abs(atoms.positions)
        self.results = {"energy": float(heights.sum()), "forces": -np.sign(atoms.positions)}


def test_a_minimiser_that_gives_up_is_seen_and_does_not_stall(move):
    """A segment that ends early shows where, and one that would not move at all is a failure, told as such."""
    start = Atoms("Ar2", positions=[[0.3, -0.2, 0.5], [2.1, 1.7, -3.3]])
    sampler, seen = OpenMM(ensemble="minimise"), []
    segment = move(sampler, start, Kinked(), 50, monitor=lambda *look: seen.append(look), stride=1)
    assert 0 < len(segment.frames) == segment.steps < 50
    assert (seen[-1][0], segment.finished) == (segment.steps, False)
    assert np.array_equal(seen[-1][1].positions, segment.walker.structure.positions)

    def go_on(walker: Walker) -> None:
        for _ in range(20):
            walker = move(sampler, walker, Kinked(), 50).walker

    with pytest.raises(NoWayDown, match=r"a force of 1\.7 eV/Å; set a tolerance above that \(it is 0\.05\)"):
        go_on(segment.walker)


def test_the_monitor_may_stop_a_minimiser_that_does_not_move(move):
    """An uncertain structure is a candidate even there."""

    class Uphill(Kinked):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = -self.results["forces"]

    start = Atoms("Ar", positions=[[0.3, -0.2, 0.5]])
    segment = move(OpenMM(ensemble="minimise"), start, Uphill(), 50, monitor=lambda step, atoms: "uncertain")
    assert (segment.steps, segment.stopped, segment.finished) == (0, "uncertain", False)
    with pytest.raises(NoWayDown):
        move(OpenMM(ensemble="minimise"), start, Uphill(), 50)


def test_a_segment_of_no_steps_asks_for_nothing(cluster, argon, move):
    cluster.set_momenta(np.ones((13, 3)))
    for sampler in (NVE, OpenMM(temperature=80.0)):
        walker = Walker(cluster, b"whatever it is", 7)
        assert move(sampler, walker, argon, 0).walker == Walker(cluster, b"whatever it is", 7)
    assert argon.calls == 0
    end = move(OpenMM(ensemble="minimise"), cluster, argon, 0).walker.structure
    assert np.array_equal(end.positions, cluster.positions)
    assert np.array_equal(end.get_momenta(), cluster.get_momenta())


def test_without_a_temperature_atoms_at_rest_stay_at_rest(ideal_gas, move):
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 4]], momenta=np.zeros((2, 3)))
    assert not move(OpenMM(ensemble="nve"), atoms, ideal_gas, 5).walker.structure.get_momenta().any()
    assert move(NVE, atoms, ideal_gas, 5).walker.structure.get_momenta().any()


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_a_segment_copies_no_potential(ensemble, cluster, argon, move, monkeypatch):
    """A copy of a network, for each segment of each walker, takes longer than many of its steps."""
    copied = []
    monkeypatch.setattr(type(argon), "__reduce_ex__", lambda self, protocol: copied.append(self) or (type(self), ()))
    move(OpenMM(ensemble=ensemble, temperature=80.0), cluster, argon, 2)
    assert argon.calls
    assert not copied
