"""What every sampler is given: batched forces, and a monitor that stops a walker in time.

The walkers of one task run in threads, each with its own engine. Their force calls meet in a `Rendezvous`,
and one batched prediction serves them all; a sampler sees an ordinary ASE calculator.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np
from ase import Atoms, units
from pydantic import Field, PositiveFloat

from psiflow_core import answers
from psiflow_core.answers import Attendance
from psiflow_core.bias import WalkerBias
from psiflow_core.checks import closest_pair
from psiflow_core.components import (
    Monitor,
    Policy,
    Prediction,
    Predictor,
    Sampler,
    SamplingTask,
    Segment,
    Walker,
    finite,
)
from psiflow_core.errors import StructureError, WalkerExploded, WrongAnswer
from psiflow_core.predictors import PredictorCalculator

Request: TypeAlias = tuple[Predictor, Atoms]

UNCERTAIN = "uncertain"
"""The reason of a stop that yields a candidate; every other reason resets the walker."""

GOES_ON = "forces were asked for after the sampler had returned: a thread of it goes on"


class Limits(Policy):
    """When a walker must stop. Checked every `check_every` steps, for every sampler alike."""

    deviation: PositiveFloat = 0.5
    """A structure with an atom whose committee spread is above this is a candidate, and its segment stops. [eV/Å]"""
    lost: PositiveFloat = 5.0
    """Above this spread a structure is taken for unphysical: no label, the walker is reset. [eV/Å]"""
    force: PositiveFloat = 50.0
    """Largest force on an atom. [eV/Å]"""
    distance: PositiveFloat = 0.5
    """Smallest distance between two atoms. [Å]"""
    temperature_quantile: float = Field(default=1e-9, gt=0, lt=0.5)
    """A walker is too hot when the chance of so high a kinetic energy, by the χ² distribution of its degrees
    of freedom at the sampler's temperature, is below this."""


@dataclass(frozen=True)
class Checked:
    """A structure at which the committee was asked."""

    step: int
    structure: Atoms
    prediction: Prediction

    @property
    def deviation(self) -> float:
        """The largest spread of any atom's force; 0 for a committee of one. [eV/Å]"""
        spread = self.prediction.deviation
        return 0.0 if spread is None else float(np.max(spread))


@dataclass(frozen=True)
class Visited:
    """What one walker's segment came to."""

    segment: Segment | None
    """None if the sampler raised."""
    most_uncertain: Checked | None
    """Among the structures that were checked and found sound."""
    error: BaseException | None = None


class Rendezvous:
    """Where the calls of several walkers meet: one thread, the server's, predicts for all of them at once.

    It is always the same thread, for memory that a thread has used is quick to use again. A walker that ends
    must `leave`. Batches are sorted by walker, so that equal runs give equal numbers.
    """

    def __init__(self, walkers: int) -> None:
        self._lock = threading.Lock()
        self._present = set(range(walkers))
        self._waiting: dict[int, Request] = {}
        self._complete: SimpleQueue[dict[int, Request] | None] = SimpleQueue()
        self._answers: list[SimpleQueue[Prediction | BaseException]] = [SimpleQueue() for _ in range(walkers)]
        self._turns = [threading.Lock() for _ in range(walkers)]
        """A sampler may ask from threads of its own: one question of a walker waits at a time."""
        self._broken: BaseException | None = None

    def ask(self, walker: int, predictor: Predictor, structure: Atoms) -> Prediction:
        """Wait for the others, and return what the predictor says of this walker's structure.

        Raises:
            WalkerExploded: the answer is not finite.
            WrongAnswer: the predictor did not answer for each structure, or not in its shape; or the walker has left,
                and a thread of its sampler goes on.
        """
        with self._turns[walker]:
            answer = self._answer(walker, (predictor, structure))
        if isinstance(answer, BaseException):
            raise answer
        if not finite(answer):
            raise WalkerExploded("energy, forces or committee spread are not finite")
        return answer

    def _answer(self, walker: int, request: Request) -> Prediction | BaseException:
        with self._lock:
            if self._broken is not None:
                raise self._broken
            if walker not in self._present:
                raise WrongAnswer(GOES_ON)
            self._waiting[walker] = request
            self._hand_over()
        return self._answers[walker].get()

    def leave(self, walker: int) -> None:
        """Take this walker's place away; the others do not wait for it any longer."""
        with self._lock:
            self._present.discard(walker)
            if self._waiting.pop(walker, None):  # from a thread that the sampler did not wait for
                self._answers[walker].put(WrongAnswer(GOES_ON))
            self._hand_over()

    def serve(self) -> None:
        """Predict until every walker has left; if it ends in any other way, `give_up` has to follow."""
        while (requests := self._complete.get()) is not None:
            for predictor in {id(asked): asked for asked, _ in requests.values()}.values():
                group = sorted(walker for walker, (asked, _) in requests.items() if asked is predictor)
                structures = [requests[walker][1] for walker in group]
                for walker, answer in zip(group, _predict(predictor, structures), strict=True):
                    self._answers[walker].put(answer)

    def give_up(self, error: BaseException) -> None:
        """Raise this in every walker that waits or asks later, for nobody will answer."""
        with self._lock:
            self._broken = error
            for answers in self._answers:
                answers.put(error)

    def _hand_over(self) -> None:
        """Give the requests to the server once every walker that is present waits; with none left, its end."""
        if not self._present:
            self._complete.put(None)
        elif self._waiting.keys() == self._present:
            waiting, self._waiting = self._waiting, {}
            self._complete.put(waiting)


class Watch:
    """The monitor of one walker."""

    def __init__(
        self,
        limits: Limits,
        ask: Callable[[Atoms], Prediction],
        temperature: float | None,
    ) -> None:
        self._limits = limits
        self._ask = ask
        self._temperature = temperature
        self.most_uncertain: Checked | None = None

    def __call__(self, step: int, structure: Atoms) -> str | None:
        """The reason to stop here, if there is one; the cheap checks come first."""
        reason = self._unsound(structure)
        if reason:
            return reason
        checked = Checked(step, structure.copy(), self._ask(structure))
        if np.linalg.norm(checked.prediction.forces, axis=1).max() > self._limits.force:
            return "force ceiling"
        if checked.deviation > self._limits.lost:
            return "lost"
        if self.most_uncertain is None or checked.deviation >= self.most_uncertain.deviation:
            self.most_uncertain = checked
        return UNCERTAIN if checked.deviation > self._limits.deviation else None

    def _unsound(self, structure: Atoms) -> str | None:
        known = (structure.positions, structure.get_momenta(), structure.cell)
        if not all(np.isfinite(values).all() for values in known):
            return "not finite"
        if closest_pair(structure, self._limits.distance):
            return "atoms too close"
        if self._temperature and too_hot(structure, self._temperature, self._limits.temperature_quantile):
            return "too hot"
        return None


def too_hot(structure: Atoms, temperature: float, quantile: float) -> bool:
    """Whether the kinetic energy is beyond chance: 2K/kT follows χ² with at most 3N degrees of freedom."""
    from scipy.stats import chi2

    degrees = 3 * len(structure)
    scaled = 2 * structure.get_kinetic_energy() / (units.kB * temperature)
    return bool(scaled > chi2.isf(quantile, degrees))


def refuse_hot(starts: Sequence[Atoms], temperature: float | None, quantile: float) -> None:
    """Refuse momenta with which a walker would be stopped at once.

    Args:
        temperature: the sampler's, None if it has none. [K]
        quantile: as in `Limits.temperature_quantile`.

    Raises:
        StructureError: the first start that is too hot.
    """
    for number, structure in enumerate(starts):
        if temperature and too_hot(structure, temperature, quantile):
            raise StructureError(
                f"start structure {number} ({structure.get_chemical_formula()}): it has momenta of "
                f"{structure.get_temperature():.0f} K, and the sampler is at {temperature:g} K: a walker would be "
                "stopped as too hot at once; remove them: del atoms.arrays['momenta']"
            )


def sample_together(
    sampler: Sampler,
    walkers: Sequence[Walker],
    tasks: Sequence[SamplingTask],
    driving: Predictor,
    committee: Predictor,
    limits: Limits,
    biases: Sequence[WalkerBias | None] = (),
    who: str = "",
) -> list[Visited]:
    """Move several walkers by one segment each, in threads, their force calls batched.

    Args:
        driving: the predictor whose forces move the walkers.
        committee: the predictor that the monitor asks.
        biases: of each walker; empty if none has any. They act on what moves it, and not on what the monitor sees.
        who: what messages call the sampler.

    A walker whose sampler raises, or gives a wrong answer, ends alone; its error is in its `Visited`.
    """
    rendezvous = Rendezvous(len(walkers))
    who = who or f"sampler '{sampler.name}'"
    temperature = answers.temperature(sampler, who)

    def move(number: int) -> Visited:
        watch = Watch(limits, lambda atoms: rendezvous.ask(number, committee, atoms), temperature)

        def ask(atoms: Atoms) -> Prediction:
            return rendezvous.ask(number, driving, atoms)

        walker, task, bias = walkers[number], tasks[number], biases[number] if biases else None
        monitor = Attendance(remembering(watch, bias) if bias else watch, walker, task, who)
        forces = PredictorCalculator(driving, monitor.noting(bias.over(ask) if bias else ask))
        try:
            return _visit(sampler, walker, forces, task, monitor, watch, who)
        finally:
            rendezvous.leave(number)

    with ThreadPoolExecutor(max_workers=len(walkers)) as threads:
        try:
            visits = threads.map(move, range(len(walkers)))
            rendezvous.serve()
        except BaseException as error:  # the pool waits for its threads, and they would wait for answers
            rendezvous.give_up(error)
            raise
        return list(visits)


def _visit(
    sampler: Sampler,
    walker: Walker,
    forces: PredictorCalculator,
    task: SamplingTask,
    monitor: Attendance,
    watch: Watch,
    who: str,
) -> Visited:
    """One walker's segment, checked; what is raised over it is handed on, for the task to make a failure of it."""
    try:
        with answers.blamed(who):
            found = sampler.sample(replace(walker, structure=walker.structure.copy()), forces, task, monitor)
        return Visited(answers.segment(found, walker, task, monitor, who), watch.most_uncertain)
    except BaseException as error:
        fault = monitor.fault or error
        return Visited(None, None if isinstance(fault, WrongAnswer) else watch.most_uncertain, fault)


def remembering(monitor: Monitor, bias: WalkerBias) -> Monitor:
    """A monitor that lets a bias look at what it has found sound."""

    def look(step: int, structure: Atoms) -> str | None:
        reason = monitor(step, structure)
        if reason in (None, UNCERTAIN):
            bias.look(step, structure)
        return reason

    return look


def batch_size(atoms: int, device: str) -> int:
    """How many walkers of this many atoms share a prediction.

    Measured on a CPU: batching gains 7 to 13 times for molecules of 7 atoms and nothing at 100 atoms, where
    one structure fills the core. A GPU takes two orders more.
    """
    full = 20_000 if device.startswith("cuda") else 288
    return max(1, min(32 if device == "cpu" else 256, full // atoms))


def _predict(predictor: Predictor, structures: Sequence[Atoms]) -> Sequence[Prediction | BaseException]:
    """As many answers as structures, whatever the predictor does."""
    try:
        return answers.asked(predictor, structures)
    except KeyboardInterrupt:
        raise
    except WrongAnswer as error:
        return [error for _ in structures]
    except BaseException as error:  # one structure may have spoiled the batch: find out which
        return [error] if len(structures) == 1 else [_predict(predictor, [one])[0] for one in structures]
