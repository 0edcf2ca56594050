"""Batched walkers and the monitor that watches them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones
from psiflow_toys import chance

from psiflow_core.builtin.ase_sampler import AseSampler
from psiflow_core.components import (
    CalculatorPredictor,
    Monitor,
    Prediction,
    Predictor,
    Sampler,
    SamplingTask,
    Segment,
    Walker,
)
from psiflow_core.constraints import fix
from psiflow_core.errors import WalkerExploded, WrongAnswer
from psiflow_core.potentials.predictors import Committee
from psiflow_core.sampling.batching import batch_size
from psiflow_core.sampling.momenta import first_momenta, maxwell_boltzmann
from psiflow_core.sampling.monitor import Limits, Watch, refuse_hot, too_hot
from psiflow_core.sampling.walk import Visited, sample_together

LIMITS = Limits(deviation=1e3, lost=1e4, force=1e6, temperature_quantile=1e-300)
"""They stop nothing."""


class Counted(Predictor):
    """Lennard-Jones, with a record of how it was asked; ``spoiled`` says which structures it chokes on."""

    def __init__(self, sigma: float = 1.0, spoiled: Callable[[Atoms], str | None] = lambda atoms: None) -> None:
        self._sigma, self._spoiled = sigma, spoiled
        self.batches: list[list[str]] = []

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        self.batches.append([atoms.info["name"] for atoms in structures])
        return [self._one(atoms) for atoms in structures]

    def _one(self, atoms: Atoms) -> Prediction:
        fault = self._spoiled(atoms)
        if fault == "raises":
            raise RuntimeError("this structure makes the model raise")
        answer = CalculatorPredictor(LennardJones(sigma=self._sigma, epsilon=0.05, rc=6.0)).predict([atoms])[0]
        return Prediction(float("nan"), answer.forces) if fault == "nan" else answer


def walkers(number: int) -> list[Walker]:
    """Little clusters that differ."""
    found = []
    for n in range(number):
        atoms = Atoms("Ar3", [[0, 0, 0], [1.2 + 0.02 * n, 0, 0], [0.5, 1.2, 0]])
        atoms.info["name"] = f"walker {n}"
        found.append(Walker(atoms))
    return found


def tasks(number: int, steps: int = 12) -> list[SamplingTask]:
    return [SamplingTask(steps=steps, seed=100 + n, check_every=4) for n in range(number)]


def move(
    number: int, driving: Predictor, committee: Predictor | None = None, which: Sequence[int] | None = None
) -> list[Visited]:
    chosen = list(which if which is not None else range(number))
    all_walkers, all_tasks = walkers(number), tasks(number)
    return sample_together(
        AseSampler(temperature=50.0),
        [all_walkers[n] for n in chosen],
        [all_tasks[n] for n in chosen],
        driving,
        committee or driving,
        LIMITS,
    )


def trace(visit: Visited) -> tuple[bytes, bytes, bytes | None]:
    """Where a walker came to, to the last bit."""
    assert visit.segment is not None
    walker = visit.segment.walker
    return walker.structure.positions.tobytes(), walker.structure.get_momenta().tobytes(), walker.state


def test_walkers_go_together_exactly_where_they_go_alone() -> None:
    together = [trace(visit) for visit in move(5, Counted())]
    alone = [trace(move(5, Counted(), which=[n])[0]) for n in range(5)]
    assert together == alone
    assert len(set(together)) == 5


def test_one_prediction_serves_all_walkers_at_each_step() -> None:
    driving, committee = Counted(), Counted()
    move(4, driving, committee)
    alone = Counted()
    move(4, alone, Counted(), which=[0])
    assert len(driving.batches) == len(alone.batches)
    assert all(batch == [f"walker {n}" for n in range(4)] for batch in [*driving.batches, *committee.batches])


def test_the_committee_is_asked_at_checks_only() -> None:
    driving, committee = Counted(), Counted(sigma=1.01)
    move(3, driving, committee)
    assert len(committee.batches) == 3  # 12 steps, a check every 4
    assert len(driving.batches) > 12


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_sick_walker_ends_alone(fault: str) -> None:
    def spoiled(atoms: Atoms) -> str | None:
        sick = atoms.info["name"] == "walker 2" and atoms.get_kinetic_energy() != 0 and next(steps) > 5
        return fault if sick else None

    steps = iter(range(1000))
    healthy = [trace(visit) for visit in move(4, Counted(), Counted())]
    visits = move(4, Counted(spoiled=spoiled), Counted())
    assert visits[2].segment is None
    assert isinstance(visits[2].error, RuntimeError if fault == "raises" else WalkerExploded)
    for n in (0, 1, 3):
        assert trace(visits[n]) == healthy[n]


class Steps(Sampler):
    """Asks for forces once a step; a walker whose name ends in an odd number stops half way."""

    name: ClassVar[str] = "steps"

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        atoms = walker.structure.copy()
        odd = int(atoms.info["name"].split()[1]) % 2
        taken = task.steps // (2 if odd else 1)
        for step in range(1, taken + 1):
            forces.calculate(atoms)
            atoms.positions += 0.001
            if step % task.check_every == 0 or step == taken:
                monitor(step, atoms)
        return Segment(Walker(atoms, step=walker.step + taken), taken)


def test_walkers_that_end_early_are_not_waited_for() -> None:
    driving = Counted()
    visits = sample_together(Steps(), walkers(4), tasks(4), driving, Counted(), LIMITS)
    assert [visit.segment.steps for visit in visits if visit.segment] == [12, 6, 12, 6]
    assert [len(batch) for batch in driving.batches] == [4] * 6 + [2] * 6


class Asking(Sampler):
    """Even walkers ask for forces while odd ones ask the monitor, and the other way round."""

    name: ClassVar[str] = "asking"

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        atoms = walker.structure.copy()
        for step in range(1, task.steps + 1):
            atoms.positions += 0.001
            if (step + int(atoms.info["name"].split()[1])) % 2:
                monitor(step, atoms)
            else:
                forces.calculate(atoms)
        return Segment(Walker(atoms, step=walker.step + task.steps), task.steps)


def test_calls_of_different_predictors_meet_and_are_grouped() -> None:
    driving, committee = Counted(), Counted()
    sample_together(Asking(), walkers(4), tasks(4), driving, committee, LIMITS)
    assert {tuple(batch) for batch in driving.batches} == {("walker 0", "walker 2"), ("walker 1", "walker 3")}
    assert len(driving.batches) == len(committee.batches) == 12


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    move(3, Counted(), which=[0, 1])
    move(3, Counted(spoiled=lambda atoms: "raises"))
    assert threading.active_count() == before


class Miscounting(Predictor):
    """Answers for one structure less, or for one more, than it is asked about."""

    def __init__(self, excess: int) -> None:
        self._excess = excess

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return (Counted().predict(structures) * 2)[: len(structures) + self._excess]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("excess", [-1, 1])
@pytest.mark.parametrize("number", [1, 3])
def test_a_predictor_that_gives_a_wrong_number_of_predictions_is_named(number: int, excess: int) -> None:
    for visit in move(number, Miscounting(excess)):
        assert visit.segment is None
        with pytest.raises(WrongAnswer, match=rf"Miscounting.* wrong number of predictions: {number + excess} for"):
            raise visit.error or AssertionError


class Nothing(Predictor):
    """Forgets to return."""

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return None  # type: ignore[return-value]


@pytest.mark.timeout(60)
def test_a_predictor_that_returns_nothing_ends_its_walkers() -> None:
    assert [type(visit.error) for visit in move(3, Nothing())] == [WrongAnswer] * 3


class Interrupted(Predictor):
    """Works until Ctrl-C comes."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt("while it predicts")
        return Counted().predict(structures)


class Stubborn(Sampler):
    """Asks once more after it was told that there are no answers, as one that cleans up might."""

    name: ClassVar[str] = "stubborn"

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        try:
            for _ in range(task.steps):
                forces.calculate(walker.structure)
        finally:
            forces.calculate(walker.structure)
        raise AssertionError("it was answered")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sampler", [Steps(), Stubborn()])
def test_an_interruption_releases_every_walker_and_is_passed_on(sampler: Sampler) -> None:
    before = threading.active_count()
    driving = Interrupted(calls=4)
    with pytest.raises(KeyboardInterrupt, match="while it predicts"):
        sample_together(sampler, walkers(3), tasks(3), driving, driving, LIMITS)
    assert threading.active_count() == before


@pytest.mark.timeout(60)
def test_threads_that_cannot_start_leave_no_walker_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, iter(range(10))

    def scarce(thread: threading.Thread) -> None:
        if next(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        move(4, Counted())


class Undecided(Predictor):
    """A committee whose forces are sound and whose spread, of one atom, is not a number."""

    def __init__(self, spread: float) -> None:
        self._spread = spread

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [
            Prediction(answer.energy, answer.forces, deviation=np.array([0.1, self._spread, 0.1]))
            for answer in Counted().predict(structures)
        ]


@pytest.mark.parametrize("spread", [np.nan, np.inf])
def test_a_committee_whose_spread_is_no_number_explodes_the_walker(spread: float) -> None:
    for visit in move(2, Counted(), Undecided(spread)):
        assert isinstance(visit.error, WalkerExploded)
        assert visit.segment is None
        assert visit.most_uncertain is None


# The monitor -----------------------------------------------------------------------------------------------


def watch(limits: Limits, spread: float = 0.0, force: float = 0.0, temperature: float | None = None) -> Watch:
    """A monitor whose committee has this spread and these forces for everything."""

    def ask(atoms: Atoms) -> Prediction:
        forces = np.zeros((len(atoms), 3))
        forces[0, 0] = force
        return Prediction(0.0, forces, deviation=np.full(len(atoms), spread))

    return Watch(limits, ask, temperature)


def water(kelvin: float = 0.0) -> Atoms:
    atoms = molecule("H2O")
    if kelvin:
        atoms.set_momenta(maxwell_boltzmann(atoms, kelvin, np.random.default_rng(0)))
    return atoms


def test_the_monitor_lets_a_sound_structure_go_on() -> None:
    sound = watch(Limits(), spread=0.1, force=1.0, temperature=300.0)
    assert sound(10, water(300.0)) is None
    assert sound.most_uncertain is not None


def test_an_uncertain_structure_stops_the_walker_and_is_kept() -> None:
    stopping = watch(Limits(deviation=0.2), spread=0.3)
    assert stopping(10, water()) == "uncertain"
    assert stopping.most_uncertain is not None
    assert stopping.most_uncertain.step == 10
    assert stopping.most_uncertain.deviation == 0.3


@pytest.mark.parametrize(
    ("reason", "monitor"),
    [
        ("force ceiling", watch(Limits(force=20.0), force=21.0)),
        ("lost", watch(Limits(lost=2.0), spread=2.1)),
    ],
)
def test_an_unphysical_answer_stops_the_walker_and_is_no_candidate(reason: str, monitor: Watch) -> None:
    assert monitor(5, water()) == reason
    assert monitor.most_uncertain is None


def test_atoms_too_close_stop_the_walker_before_the_committee_is_asked() -> None:
    def never(atoms: Atoms) -> Prediction:
        raise AssertionError("asked for a structure that is unsound")

    close = water()
    close.positions[1] = close.positions[0] + [0, 0, 0.4]
    assert Watch(Limits(distance=0.5), never, None)(1, close) == "atoms too close"
    broken = water()
    broken.positions[0, 0] = np.nan
    assert Watch(Limits(), never, None)(1, broken) == "not finite"
    rushing = water(300.0)
    rushing.set_momenta(np.full((3, 3), np.nan))
    assert Watch(Limits(), never, 300.0)(1, rushing) == "not finite"
    hot = water(30_000.0)
    assert Watch(Limits(), never, 300.0)(1, hot) == "too hot"


def test_without_a_thermostat_no_temperature_is_too_high() -> None:
    assert watch(Limits())(1, water(30_000.0)) is None


def test_the_most_uncertain_of_the_checked_structures_is_kept() -> None:
    spreads = iter([0.1, 0.4, 0.2])
    atoms = water()

    def ask(structure: Atoms) -> Prediction:
        return Prediction(0.0, np.zeros((3, 3)), deviation=np.full(3, next(spreads)))

    monitor = Watch(Limits(), ask, None)
    for step in (10, 20, 30):
        atoms.positions += 0.01
        monitor(step, atoms)
    assert monitor.most_uncertain is not None
    assert monitor.most_uncertain.step == 20
    assert not np.allclose(monitor.most_uncertain.structure.positions, atoms.positions)


@pytest.mark.parametrize("quantile", [0.05, 0.01])
def test_thermal_motion_is_too_hot_as_often_as_the_quantile_says(quantile: float) -> None:
    random, atoms, samples = np.random.default_rng(1 + chance.SEED_SHIFT), molecule("CH3CHO"), 20_000
    kT = units.kB * 600.0
    alarms = 0
    for _ in range(samples):  # all 3N degrees of freedom, as Langevin's thermostat leaves them
        atoms.set_momenta(random.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses()[:, None] * kT))
        alarms += too_hot(atoms, 600.0, quantile)
    expected = quantile * samples
    assert abs(alarms - expected) < 5 * np.sqrt(expected)


def test_fixed_atoms_have_no_share_of_the_heat() -> None:
    """3 degrees of freedom of a free atom decide, not those of all: two thirds of them would hide what is too hot."""
    random, atoms, samples, quantile = np.random.default_rng(2 + chance.SEED_SHIFT), molecule("CH3CHO"), 20_000, 0.01
    fix(atoms, [0, 1, 2, 3, 4])
    alarms = 0
    for _ in range(samples):
        atoms.set_momenta(maxwell_boltzmann(atoms, 600.0, random))
        alarms += too_hot(atoms, 600.0, quantile)
    assert abs(alarms - quantile * samples) < 5 * np.sqrt(quantile * samples)


def test_momenta_that_fixed_atoms_were_given_do_not_make_a_start_too_hot() -> None:
    atoms = molecule("CH3CHO")
    fix(atoms, [0])
    atoms.arrays["momenta"] = np.zeros((7, 3))
    atoms.arrays["momenta"][0] = 1e3
    refuse_hot([atoms], 600.0, 1e-9)
    assert not first_momenta(atoms, 600.0, np.random.default_rng(0))[0].any()


def test_one_atom_with_the_heat_of_thirty_is_too_hot() -> None:
    atoms = molecule("CH3CHO")
    atoms.set_momenta(np.zeros((7, 3)))
    momenta = atoms.get_momenta()
    momenta[0, 0] = np.sqrt(2 * atoms.get_masses()[0] * 30 * 1.5 * units.kB * 600.0)
    atoms.set_momenta(momenta)
    assert too_hot(atoms, 600.0, 1e-9)


def test_a_committee_of_one_is_never_uncertain() -> None:
    visits = move(2, Counted(), Committee([Counted()]))
    assert all(visit.most_uncertain is not None and visit.most_uncertain.deviation == 0.0 for visit in visits)


def test_fewer_walkers_share_a_prediction_the_larger_they_are() -> None:
    for device in ("cpu", "cuda"):
        sizes = [batch_size(atoms, device) for atoms in (1, 7, 30, 100, 1000, 100_000)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 1
    assert batch_size(7, "cpu") >= 8
    assert batch_size(7, "cuda") > batch_size(7, "cpu")
