"""Answers that fail while they are looked at, and samplers and executors that misbehave around the checks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones

from psiflow_core import answers
from psiflow_core.components import CalculatorPredictor, Monitor, Pool, Sampler, SamplingTask, Segment, Walker
from psiflow_core.components.checking import number
from psiflow_core.errors import OptionError, WalkerExploded, WrongAnswer
from psiflow_core.execution.blocks import Blocks
from psiflow_core.execution.pools import Pools
from psiflow_core.registry.plugins import Registry
from psiflow_core.sampling.monitor import Limits
from psiflow_core.sampling.walk import sample_together
from psiflow_core.structures import Label


class Unreadable(Exception):
    def __repr__(self) -> str:
        raise ValueError("it has no words")

    __str__ = __repr__


@pytest.mark.parametrize("energy", [Unreadable(), 10**400, None])
def test_an_answer_that_cannot_be_looked_at_is_its_plugins(energy: Any) -> None:
    with pytest.raises(WrongAnswer, match=r"^reference 'x' returned "):
        answers.label(Label(energy, np.zeros((3, 3))), molecule("H2O"), "reference 'x'")


def test_what_is_beneath_a_mask_is_no_number() -> None:
    assert np.isnan(number(np.ma.masked, "an energy", "x"))


def test_an_exception_without_words_is_a_broken_plugin_and_no_more() -> None:
    class Plugin:
        def __getattr__(self, name: str) -> Any:
            raise Unreadable

    registry = Registry()
    registry.register(Plugin(), "mute", "mute", "1")
    assert list(registry.broken) == ["mute"]


Does = Callable[[Walker, Calculator, Monitor], Atoms]


class Wayward(Sampler):
    """Takes six steps in a way that a test gives it."""

    name: ClassVar[str] = "wayward"
    does: ClassVar[Does]

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        ended = type(self).does(walker, forces, monitor)
        return Segment(Walker(ended, b"", walker.step + 6), 6)


def moved(walker: Walker, forces: Calculator, by: float = 1e-3) -> Atoms:
    atoms = walker.structure.copy()
    atoms.calc = forces
    atoms.get_forces()
    atoms.positions += by
    return atoms


def elsewhere(walker: Walker, forces: Calculator, monitor: Monitor) -> Atoms:
    for step in (2, 4, 6):
        monitor(step, walker.structure)
    return moved(walker, forces)


def swallowing(walker: Walker, forces: Calculator, monitor: Monitor) -> Atoms:
    atoms = moved(walker, forces)
    far = atoms.copy()
    far.calc, far.positions[0] = forces, np.nan
    try:
        far.get_forces()
    except Exception:
        monitor(2, atoms)
    monitor(4, atoms)
    monitor(6, atoms)
    return atoms


def cast_otherwise(walker: Walker, forces: Calculator, monitor: Monitor) -> Atoms:
    atoms = moved(walker, forces)
    for step in (2, 4, 6):
        monitor(step, atoms)
    atoms.arrays["momenta"] = np.zeros((2, 3))
    return atoms


def charged(walker: Walker, forces: Calculator, monitor: Monitor) -> Atoms:
    atoms = cast_otherwise(walker, forces, monitor)
    del atoms.arrays["momenta"]
    atoms.set_initial_charges([1.0, 0.0, 0.0])
    return atoms


class NotFinite(CalculatorPredictor):
    def predict(self, structures: Any) -> Any:
        if not all(np.isfinite(atoms.positions).all() for atoms in structures):
            raise WalkerExploded("the atoms are nowhere")
        return super().predict(structures)


def visited(monkeypatch: pytest.MonkeyPatch, does: Does, walkers: int = 1) -> list[BaseException | None]:
    monkeypatch.setattr(Wayward, "does", staticmethod(does), raising=False)
    predictor = NotFinite(LennardJones(sigma=0.8, epsilon=0.01))
    task = SamplingTask(6, seed=1, check_every=2)
    given = [Walker(molecule("H2O")) for _ in range(walkers)]
    visits = sample_together(Wayward(), given, [task] * walkers, predictor, predictor, Limits())
    return [visit.error for visit in visits]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (elsewhere, "at another position than in the last call of the monitor"),
        (cast_otherwise, "whose momenta are no real numbers of shape"),
        (charged, "whose initial_charges are others"),
    ],
)
def test_a_walker_that_the_monitor_has_not_seen_is_not_believed(
    does: Does, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (error,) = visited(monkeypatch, does)
    assert isinstance(error, WrongAnswer)
    assert said in str(error)


def test_what_the_forces_raised_cannot_be_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    (error,) = visited(monkeypatch, swallowing)
    assert isinstance(error, WalkerExploded)


def test_a_thread_that_a_sampler_left_behind_does_not_hold_up_the_other_walkers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, left, late = threading.Lock(), threading.Event(), []

    def ask_late(walker: Walker, forces: Calculator) -> None:
        left.wait(10)
        try:
            moved(walker, forces)
        except WrongAnswer as error:
            late.append(str(error))

    def leaving(walker: Walker, forces: Calculator, monitor: Monitor) -> Atoms:
        if first.acquire(blocking=False):
            threads.append(threading.Thread(target=ask_late, args=(walker, forces), daemon=True))
            threads[0].start()
            raise RuntimeError("it leaves early")
        atoms = moved(walker, forces)  # once the other has left
        left.set()
        threads[0].join(10)
        for step in (2, 4, 6):
            monitor(step, atoms)
        return atoms

    threads: list[threading.Thread] = []
    errors = visited(monkeypatch, leaving, walkers=2)
    assert sorted(map(str, errors)) == ["None", "it leaves early"]
    assert late == ["forces were asked for after the sampler had returned: a thread of it goes on"]


class Strange(Blocks):
    """Blocks of which something is wrong."""

    name: ClassVar[str] = "strange"
    how: str = ""

    def scheduler(self, pool: Pool) -> Any:
        if self.how == "raises":
            raise RuntimeError("there is no account")
        return None

    def block_count(self) -> Any:
        return "two" if self.how == "counts" else 1


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ("raises", WrongAnswer, "executor 'strange' raised RuntimeError: there is no account"),
        ("counts", WrongAnswer, "executor 'strange' returned slots that are 'two'"),
        ("", OptionError, "executor 'strange' has a NoneType as its scheduler"),
    ],
)
def test_an_executor_that_fails_in_the_driver_is_named(
    how: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    strange, pool = Strange(how=how, workers=1), Pool("p", tmp_path, ("python",), 1)
    with pytest.raises(error, match=said):
        Pools({"p": strange}, tmp_path)._guarded(strange, pool)
