"""The samplers that run on ASE alone: contracts, and what statistical mechanics demands of each ensemble."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from psiflow_toys import chance

from psiflow_core.builtin import _ase_dynamics
from psiflow_core.builtin.ase_sampler import AseSampler
from psiflow_core.builtin.random_displacement import RandomDisplacement
from psiflow_core.components import CalculatorPredictor, PredictorCalculator, Sampler, SamplingTask, Segment, Walker
from psiflow_core.constraints import fix
from psiflow_core.errors import OptionError, StructureError
from psiflow_core.sampling.momenta import maxwell_boltzmann
from psiflow_core.structures import Array
from psiflow_core.testing import SamplerContract


class TestNve(SamplerContract):
    component = AseSampler
    options = {"ensemble": "nve"}  # noqa: RUF012


class TestLangevin(SamplerContract):
    component = AseSampler


class TestBussi(SamplerContract):
    component = AseSampler
    options = {"thermostat": "bussi"}  # noqa: RUF012


class TestIsotropicNpt(SamplerContract):
    component = AseSampler
    options = {"ensemble": "npt", "pressure": 1000.0}  # noqa: RUF012


class TestFlexibleNpt(SamplerContract):
    component = AseSampler
    options = {"ensemble": "npt", "barostat": "flexible"}  # noqa: RUF012


class TestLbfgs(SamplerContract):
    component = AseSampler
    options = {"ensemble": "optimise", "fmax": 1e-8}  # noqa: RUF012
    moves = False
    random = False


class TestBfgs(TestLbfgs):
    options = {"ensemble": "optimise", "fmax": 1e-8, "algorithm": "bfgs", "relax_cell": True}  # noqa: RUF012
    expected_failures = {  # noqa: RUF012
        "test_global_random_numbers_are_left_alone": "scipy's logm, in the cell filter, estimates norms with them",
    }


class TestFire(TestLbfgs):
    options = {"ensemble": "optimise", "fmax": 1e-8, "algorithm": "fire"}  # noqa: RUF012


class TestRandomDisplacement(SamplerContract):
    component = RandomDisplacement
    options = {"strain": 0.05}  # noqa: RUF012
    moves = False
    expected_failures = {  # noqa: RUF012
        "test_frames_carry_energy_and_forces": "no forces are asked for: it runs before there is a potential",
        "test_what_the_forces_raise_comes_out_as_it_is": "no forces are asked for",
    }


class Springs(Calculator):
    """Every two atoms are joined by a spring of length zero: 3N−3 equal harmonic modes and a free centre of mass."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    stiffness = 0.5  # eV/Å²

    def calculate(self, atoms: Atoms, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        apart = self.atoms.positions - self.atoms.positions.mean(axis=0)
        pull = self.stiffness * len(apart)
        self.results = {"energy": 0.5 * pull * float((apart**2).sum()), "forces": -pull * apart}


class IdealGas(Calculator):
    """Atoms without forces in a cell whose shape, but not whose volume, costs energy."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012
    rigidity = 1.0  # eV

    def calculate(self, atoms: Atoms, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        cell, volume = np.asarray(self.atoms.cell), self.atoms.get_volume()
        metric = cell.T @ cell / volume ** (2 / 3)
        stress = 2 * self.rigidity / volume * (metric - np.trace(metric) / 3 * np.eye(3))
        self.results = {
            "energy": self.rigidity * (np.trace(metric) - 3),
            "forces": np.zeros((len(self.atoms), 3)),
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


class Counting(PredictorCalculator):
    """EMT that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__(CalculatorPredictor(EMT()))
        self.calls = 0

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        super().calculate(*args, **kwargs)


class Softer(EMT):
    """Another model: the same surface at half its height."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        self.results = {
            name: 0.5 * value for name, value in self.results.items() if name in ("energy", "forces", "stress")
        }


class Noisy(Counting):
    """The last digits of single precision are another device's."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        forces = self.results["forces"]
        self.results["forces"] = forces + 1e-6 * np.random.default_rng(self.calls).normal(size=forces.shape)


def _quiet(step: int, atoms: Atoms) -> None:
    return None


def _run(sampler: Sampler, atoms: Atoms, forces: Calculator | None, steps: int, **task: Any) -> Segment:
    return sampler.sample(Walker(atoms), forces, SamplingTask(steps, seed=1 + chance.SEED_SHIFT, **task), _quiet)


def _copper() -> Atoms:
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=2)
    return copper


ENSEMBLES = [
    {"ensemble": "nve"},
    {"ensemble": "nvt"},
    {"thermostat": "bussi"},
    {"ensemble": "npt"},
    {"ensemble": "npt", "barostat": "flexible"},
    {"ensemble": "optimise", "fmax": 1e-9},
    {"ensemble": "optimise", "fmax": 1e-9, "relax_cell": True, "algorithm": "fire"},
]


@pytest.mark.parametrize("options", ENSEMBLES)
def test_a_step_asks_for_forces_once(options: dict) -> None:
    forces = Counting()
    _run(AseSampler(**options), _copper(), forces, 10, check_every=1, stride=1)
    assert forces.calls == 11  # and once at the start


def test_nve_conserves_energy_to_second_order_in_the_time_step() -> None:
    def spread(timestep: float) -> float:
        steps = round(400 / timestep)
        sampler = AseSampler(ensemble="nve", timestep=timestep, temperature=600.0)
        frames = _run(sampler, _copper(), Counting(), steps, stride=steps // 50).frames
        total, potential = np.array([(f.get_total_energy(), f.get_potential_energy()) for f in frames]).T
        return float(total.std() / potential.std())

    coarse, fine = spread(8.0), spread(4.0)
    assert fine < 0.05
    assert 2.5 < coarse / fine < 6.0  # velocity Verlet: 4


def _averages(sampler: Sampler, atoms: Atoms, forces: Calculator, steps: int) -> dict[str, Array]:
    """Averages of each of 32 segments, after two in which the walker forgets its start."""
    walker, seen = Walker(atoms), []
    for number in range(34):
        task = SamplingTask(steps, seed=100 + number + chance.SEED_SHIFT)
        segment = sampler.sample(walker, forces, task, _quiet)
        walker = segment.walker
        seen.append(segment.averages)
    return {name: np.array([averages[name] for averages in seen[2:]]) for name in seen[0]}


@pytest.mark.parametrize("thermostat", ["langevin", "bussi"])
def test_a_thermostat_gives_each_mode_its_share_of_energy(thermostat: str) -> None:
    atoms = Atoms("Ne4", np.random.default_rng(0).normal(scale=0.2, size=(4, 3)))
    sampler = AseSampler(thermostat=thermostat, temperature=500.0, timestep=4.0, friction=20.0)
    averages = _averages(sampler, atoms, Springs(), 200)
    modes = 3 * len(atoms) - 3
    expected, three_more = modes / 2 * units.kB * 500.0, 3 / modes  # as if the centre of mass had a share
    chance.assert_mean(averages["potential_energy"], expected, finds=three_more * expected)
    chance.assert_mean(averages["temperature"], 500.0, finds=three_more * 500.0)


@pytest.mark.parametrize("barostat", ["isotropic", "flexible"])
def test_an_ideal_gas_has_the_volume_that_the_pressure_allows(barostat: str) -> None:
    """<V> = (N+1) kT / P, exactly, in the isothermal-isobaric ensemble."""
    atoms = Atoms("Ar3", np.zeros((3, 3)), cell=[5.4] * 3, pbc=True)
    pressure = 4 * units.kB * 300.0 / 5.4**3 / units.bar
    sampler = AseSampler(
        ensemble="npt", pressure=pressure, barostat=barostat, barostat_time=30.0, friction=20.0, timestep=4.0
    )
    averages = _averages(sampler, atoms, IdealGas(), 200)
    chance.assert_mean(averages["volume"], 5.4**3, finds=0.25 * 5.4**3)  # a quarter less without the +1
    chance.assert_mean(averages["temperature"], 300.0, finds=60.0)


def test_a_cell_that_grows_along_one_axis_does_not_turn_the_atoms() -> None:
    """Quigley and Probert, Eq. 5b: the drag is p + tr(p)/Nf on the diagonal, over the barostat's mass."""
    atoms = _copper()
    atoms.calc = Counting()
    sampler = AseSampler(ensemble="npt", barostat="flexible")
    dynamics = _ase_dynamics.integrator(sampler, atoms, np.random.default_rng(0))
    dynamics.p_eps = np.diag([3.0, 0.0, 0.0])
    drag = dynamics._barostat_BAOAB_OU_gamma_mod() * dynamics.barostat_mass
    assert drag == pytest.approx(np.diag([3 + 3 / 12, 3 / 12, 3 / 12]))


def test_first_momenta_are_of_the_temperature_and_leave_the_centre_of_mass_at_rest() -> None:
    ethanol, rng = molecule("CH3CH2OH"), np.random.default_rng(chance.SEED_SHIFT)
    kinetic = []
    for _ in range(1000):
        ethanol.set_momenta(maxwell_boltzmann(ethanol, 600.0, rng))
        kinetic.append(ethanol.get_kinetic_energy())
        assert np.abs(ethanol.get_momenta().sum(axis=0)).max() < 1e-10
    expected = 24 / 2 * units.kB * 600.0
    chance.assert_mean(kinetic, expected, finds=3 / 24 * expected)


class Anchors(Calculator):
    """Every atom on its own spring at its place, so that a fixed one takes no part."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    stiffness = 2.0  # eV/Å²

    def __init__(self, places: Array) -> None:
        super().__init__()
        self.places = places

    def calculate(self, atoms: Atoms, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        apart = self.atoms.positions - self.places
        self.results = {"energy": 0.5 * self.stiffness * float((apart**2).sum()), "forces": -self.stiffness * apart}


@pytest.mark.parametrize("thermostat", ["langevin", "bussi"])
def test_each_free_atom_has_its_share_of_energy_where_others_are_fixed(thermostat: str) -> None:
    """3 degrees of freedom for each: the fixed atoms hold the centre of mass."""
    atoms = Atoms("Ne4", np.random.default_rng(0).normal(scale=0.1, size=(4, 3)))
    fix(atoms, [1, 3])
    forces = Anchors(atoms.positions * np.array([[0.0], [1.0], [0.0], [1.0]]))
    sampler = AseSampler(thermostat=thermostat, temperature=500.0, timestep=4.0, friction=20.0)
    averages = _averages(sampler, atoms, forces, 200)
    expected = 6 / 2 * units.kB * 500.0
    chance.assert_mean(averages["temperature"], 500.0, finds=0.5 * 500.0)  # as with 3 more, or 3 fewer
    chance.assert_mean(averages["potential_energy"], expected, finds=0.5 * expected)


def test_energy_is_conserved_with_fixed_atoms() -> None:
    copper = bulk("Cu", cubic=True) * (2, 1, 1)
    copper.rattle(0.1, seed=2)
    fix(copper, [0, 3, 5])
    sampler = AseSampler(ensemble="nve", timestep=2.0, temperature=600.0)
    frames = _run(sampler, copper, Counting(), 300, stride=5).frames
    total, potential = np.array([(f.get_total_energy(), f.get_potential_energy()) for f in frames]).T
    assert total.std() < 0.02 * potential.std()
    for frame in frames:
        assert np.array_equal(frame.positions[[0, 3, 5]], copper.positions[[0, 3, 5]])


@pytest.mark.parametrize("algorithm", ["lbfgs", "bfgs", "fire"])
def test_an_optimisation_is_judged_by_the_atoms_that_move(algorithm: str) -> None:
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.2, seed=3)
    fix(copper, [0, 1])
    sampler = AseSampler(ensemble="optimise", algorithm=algorithm, fmax=1e-3)
    segment = _run(sampler, copper, Counting(), 500)
    assert segment.finished
    relaxed = segment.walker.structure
    assert np.array_equal(relaxed.positions[:2], copper.positions[:2])
    relaxed.calc = EMT()
    forces = np.linalg.norm(relaxed.get_forces(apply_constraint=False), axis=1)
    assert forces[2:].max() < 1e-3 < 0.1 < forces[:2].min()


def test_a_walker_goes_on_at_another_temperature() -> None:
    cold, hot = AseSampler(temperature=100.0, friction=50.0), AseSampler(temperature=2000.0, friction=50.0)
    walker = _run(cold, _copper(), Counting(), 30).walker
    segment = hot.sample(walker, Counting(), SamplingTask(150, seed=2 + chance.SEED_SHIFT), lambda step, atoms: None)
    assert segment.averages["temperature"] > 1000


def test_a_walker_goes_on_in_every_other_ensemble() -> None:
    walker = Walker(_copper())
    for options in [*ENSEMBLES, *reversed(ENSEMBLES)]:
        segment = AseSampler(**options).sample(walker, Counting(), SamplingTask(2, seed=1), lambda step, atoms: None)
        assert segment.steps == 2
        walker = segment.walker
    assert np.isfinite(walker.structure.positions).all()


@pytest.mark.parametrize("algorithm", ["lbfgs", "bfgs", "fire"])
def test_an_optimisation_ends_where_no_force_is_left(algorithm: str) -> None:
    sampler = AseSampler(ensemble="optimise", algorithm=algorithm, fmax=1e-3)
    segment = _run(sampler, _copper(), Counting(), 500)
    assert segment.finished
    assert segment.steps < 500
    relaxed = segment.walker.structure
    relaxed.calc = EMT()
    assert np.linalg.norm(relaxed.get_forces(), axis=1).max() < 1e-3
    again = sampler.sample(segment.walker, Counting(), SamplingTask(5, seed=1), lambda step, atoms: None)
    assert (again.finished, again.steps) == (True, 0)


@pytest.mark.parametrize("algorithm", ["lbfgs", "bfgs", "fire"])
@pytest.mark.parametrize("relax_cell", [False, True])
def test_an_optimiser_forgets_when_the_potential_changes(algorithm: str, relax_cell: bool) -> None:
    """As a campaign's model does between two segments: what was learnt of the old one sends the walker uphill."""
    sampler = AseSampler(ensemble="optimise", algorithm=algorithm, relax_cell=relax_cell, fmax=1e-6)
    walker = _run(sampler, _copper(), Counting(), 12).walker
    task = SamplingTask(5, seed=1)
    same, other, afresh = (
        sampler.sample(Walker(walker.structure, state), PredictorCalculator(CalculatorPredictor(forces)), task, _quiet)
        for state, forces in ((walker.state, EMT()), (walker.state, Softer()), (None, Softer()))
    )
    assert np.array_equal(other.walker.structure.positions, afresh.walker.structure.positions)
    assert np.array_equal(other.walker.structure.cell, afresh.walker.structure.cell)
    whole = _run(sampler, _copper(), Counting(), 17).walker.structure
    assert np.array_equal(same.walker.structure.positions, whole.positions)
    assert np.array_equal(same.walker.structure.cell, whole.cell)


def test_an_optimiser_goes_on_under_the_noise_of_single_precision() -> None:
    sampler = AseSampler(ensemble="optimise", algorithm="bfgs", fmax=1e-4)
    walker = _run(sampler, _copper(), Counting(), 5).walker
    kept, forgotten = (
        sampler.sample(Walker(walker.structure, state), Noisy(), SamplingTask(3, seed=1), _quiet).walker.structure
        for state in (walker.state, None)
    )
    exact = _run(sampler, _copper(), Counting(), 8).walker.structure
    error = np.abs(kept.positions - exact.positions).max()
    assert 0 < error < 1e-5
    assert np.abs(forgotten.positions - exact.positions).max() > 10 * error


def test_a_relaxed_cell_pushes_back_with_the_pressure_outside() -> None:
    sampler = AseSampler(ensemble="optimise", relax_cell=True, pressure=50_000.0, fmax=1e-4)
    segment = _run(sampler, _copper(), Counting(), 500)
    assert segment.finished
    relaxed = segment.walker.structure
    relaxed.calc = EMT()
    said = -relaxed.get_stress()[:3] / units.bar
    assert said == pytest.approx([50_000.0] * 3, rel=0.01)


def test_a_cell_has_converged_when_its_stress_times_the_volume_per_atom_is_small() -> None:
    """All forces vanish by symmetry: the cell alone decides."""
    copper = bulk("Cu", cubic=True, a=3.7)
    copper.set_cell(copper.cell @ np.diag([1.03, 1.0, 0.99]), scale_atoms=True)
    sampler, pulls = AseSampler(ensemble="optimise", relax_cell=True, fmax=0.01, pressure=20_000.0), []

    def monitor(step: int, atoms: Atoms) -> None:
        stress = EMT().get_stress(atoms) + 20_000.0 * units.bar * np.array([1, 1, 1, 0, 0, 0])
        pulls.append(np.abs(stress).max() * atoms.get_volume() / len(atoms))

    task = SamplingTask(100, seed=1, check_every=1)
    assert sampler.sample(Walker(copper), Counting(), task, monitor).finished
    assert len(pulls) > 2
    assert min(pulls[:-1]) > 0.0095
    assert pulls[-1] < 0.0105


def test_random_displacements_stay_within_bounds_around_the_start() -> None:
    copper = _copper()
    copper.set_momenta(np.ones((4, 3)))
    sampler = RandomDisplacement(amplitude=0.2, strain=0.04)
    first = _run(sampler, copper, None, 50, stride=1)
    second = sampler.sample(first.walker, None, SamplingTask(50, seed=2, stride=1), lambda step, atoms: None)
    strains, shifts = [], []
    for frame in [*first.frames, *second.frames]:
        deformation = np.linalg.solve(copper.cell, frame.cell) - np.eye(3)
        shifts.append(frame.positions @ np.linalg.inv(np.eye(3) + deformation) - copper.positions)
        strains.append(deformation)
        assert not frame.has("momenta")
        assert deformation == pytest.approx(deformation.T, abs=1e-12)
    assert 0.19 < np.abs(shifts).max() <= 0.2 + 1e-9
    assert 0.038 < np.abs(strains).max() <= 0.04 + 1e-9
    assert np.mean(shifts, axis=0) == pytest.approx(np.zeros((4, 3)), abs=0.06)  # five standard errors


def test_a_structure_with_fixed_atoms_is_displaced_but_not_strained() -> None:
    copper = _copper()
    fix(copper, [1, 2])
    frames = _run(RandomDisplacement(amplitude=0.1, strain=0.1), copper, None, 5, stride=1).frames
    for frame in frames:
        assert np.array_equal(frame.cell, copper.cell)
        assert np.array_equal(frame.positions[[1, 2]], copper.positions[[1, 2]])
    RandomDisplacement(amplitude=0.0, strain=0.1).check([_copper()])
    with pytest.raises(StructureError, match=r"structure 0 \(Cu4\) has fixed atoms .* set an amplitude"):
        RandomDisplacement(amplitude=0.0, strain=0.1).check([copper])


@pytest.mark.parametrize("options", [{"ensemble": "npt"}, {"ensemble": "optimise", "relax_cell": True}])
def test_a_moving_cell_is_refused_where_atoms_are_fixed(options: dict) -> None:
    copper = _copper()
    fix(copper, [1])
    with pytest.raises(StructureError, match=r"has fixed atoms, but .* changes the cell, which would move them; use"):
        _run(AseSampler(**options), copper, Counting(), 1)


def test_a_molecule_is_displaced_but_not_strained() -> None:
    water = molecule("H2O", cell=[9.0, 9.0, 9.0], pbc=False)
    frame = _run(RandomDisplacement(amplitude=0.05, strain=0.3), water, None, 1, stride=1).frames[0]
    assert np.array_equal(frame.cell, water.cell)
    assert 0 < np.abs(frame.positions - water.positions).max() <= 0.05


@pytest.mark.parametrize("options", [{"ensemble": "npt"}, {"ensemble": "optimise", "relax_cell": True}])
def test_a_moving_cell_needs_a_periodic_structure(options: dict) -> None:
    with pytest.raises(StructureError, match="not periodic"):
        AseSampler(**options).check([bulk("Cu"), molecule("H2O")])
    AseSampler(**options).check([bulk("Cu")])
    AseSampler().check([molecule("H2O")])


def test_the_state_of_another_sampler_is_refused() -> None:
    walker = _run(RandomDisplacement(), _copper(), None, 1).walker
    for state in (walker.state, b"\x80checkpoint"):
        with pytest.raises(StructureError, match="not of sampler 'ase'"):
            AseSampler().sample(Walker(_copper(), state), Counting(), SamplingTask(1, seed=1), lambda step, a: None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"timestep": 0.0}, "timestep=0.0"),
        ({"ensemble": "nvp"}, "ensemble='nvp'"),
        ({"ensemble": "npt", "thermostat": "bussi"}, "use 'langevin'"),
        ({"relax_cell": True}, "needs ensemble='optimise'"),
        ({"ensemble": "nve", "thermostat": "langevin"}, "'nve' has no thermostat"),
        ({"ensemble": "optimise", "thermostat": "bussi"}, "'optimise' has no thermostat"),
        ({"ensemble": "nvt", "barostat": "flexible"}, "'nvt' has no barostat"),
        ({"ensemble": "nvt", "pressure": 1.0}, "keeps its cell; leave pressure out, or use 'npt'"),
        ({"ensemble": "optimise", "pressure": 1.0}, "keeps its cell; leave pressure out, or set relax_cell=True"),
        ({"temprature": 300.0}, "Did you mean 'temperature'"),
    ],
)
def test_wrong_options_are_told(options: dict, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        AseSampler.parse(options)


def test_only_a_thermostat_has_a_target_temperature() -> None:
    assert AseSampler(temperature=350.0).target_temperature() == 350.0
    assert AseSampler(ensemble="nve").target_temperature() is None
    assert RandomDisplacement().target_temperature() is None
