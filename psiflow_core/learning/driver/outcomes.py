"""Turns the outcomes of tasks into events of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ase import Atoms

from psiflow_core.components import Spec
from psiflow_core.errors import FileCorrupt, PsiflowError
from psiflow_core.execution.failures import ALIKE, ATTEMPTS, Failure, failure
from psiflow_core.execution.hosts import host_of, of_host
from psiflow_core.execution.tasks import evaluate, label, sample, score, train
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.files import write_sealed
from psiflow_core.labels.store import read_label
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.orders import REQUEST, Order, Orders, architectures, complete, evaluated
from psiflow_core.learning.machine.candidates import PAID, Candidate
from psiflow_core.learning.machine.events import (
    Evaluated,
    Failed,
    FailedTask,
    Fallen,
    Interrupted,
    Labelled,
    Moved,
    Proposal,
    Sampled,
    Scored,
    TaskEnded,
    Trained,
)
from psiflow_core.learning.machine.generations import Predictions, TrainedMember, Weights
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import Evaluating, Labelling, MemberTraining, Sampling
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.potentials.metrics import error_at
from psiflow_core.structures import Plain, digest

FOUND = "its label was found in the store"
"""The reason of a candidate that comes from a label in the store, not from a walker's event."""


class Outcomes:
    """Turns outcomes into events."""

    def __init__(self, orders: Orders, settings: Settings, store: Store, potentials: Sequence[Spec]) -> None:
        self._orders = orders
        self._settings = settings
        self._store = store
        self._potentials = potentials

    def taken_back(self, file: Path) -> Proposal:
        """The proposal of a candidate for a label without one; of a walker's if a committee chose its structure.

        Raises:
            LabelCorrupt: the file is not an intact label.
        """
        structure = read_label(file)[0]
        key = digest(structure)
        prediction, place = self._prediction(key), self._orders.relative(file)
        if prediction is None:
            self._store.put_structure(structure.copy())
            return Proposal(structure=key, origin="initial", file=place, reason=FOUND)
        spread = max(prediction["deviation"] or [0.0])
        verdict = self._verdict(_error(structure, prediction), spread)
        return Proposal(
            structure=key,
            origin="walker",
            file=place,
            deviation=spread,
            error=verdict.error,
            suspicious=verdict.suspicious,
            discarded=verdict.discard,
            reason=FOUND,
        )

    def event(self, order: Order, outcome: Outcome, state: State) -> TaskEnded:
        """The event for the end of a task."""
        if outcome.failure is not None:
            if outcome.is_cut:
                return self._interrupted(order, outcome.failure, outcome, state)
            if outcome.failure.type == ALIKE:
                self._store.forget_trainings()
            return self._failed(order, outcome.failure, outcome, state)
        try:
            return self._success(order, outcome, state)
        except (
            PsiflowError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # damaged answers and files
            self._store.forget_result(order.folder)
            return self._failed(order, failure(error), outcome, state)

    def _success(self, order: Order, outcome: Outcome, state: State) -> TaskEnded:
        match outcome.value, order.task.about:
            case label.Labelled() as value, Labelling() as about:
                return self._labelled(order, value, state.candidates[about.candidate], outcome)
            case train.Trained() as value, MemberTraining() as about:
                return self._trained(value, about, outcome)
            case sample.Sampled() as value, Sampling() as about:
                moved = architectures(self._potentials)[self._orders.turn(about, state)]
                walkers = tuple(self._walker(order, one) for one in value.walkers)
                return Sampled(**_ended(outcome), potential=moved, walkers=walkers)
            case score.Scored() as value, _:
                return Scored(**_ended(outcome), deviations=tuple(value.deviations))
            case evaluate.Evaluated() as value, Evaluating() as about:
                return self._evaluated(order, value, about, state, outcome)
        raise TypeError(f"{order.task.id} gave a {type(outcome.value).__name__}")

    def _labelled(self, order: Order, value: label.Labelled, candidate: Candidate, outcome: Outcome) -> Labelled:
        """Compare the label with the prediction for which the structure was chosen."""
        file = cast(label.LabelRequest, order.request).file
        labelled, _ = read_label(file)
        error = _error(labelled, self._prediction(candidate.structure)) if candidate.origin == "walker" else None
        return Labelled(
            **_ended(outcome),
            candidate=candidate.id,
            file=self._orders.relative(file),
            cached=value.cached,
            **vars(self._verdict(error, candidate.deviation or 0.0)),
        )

    def _trained(self, value: train.Trained, about: MemberTraining, outcome: Outcome) -> Trained:
        weights = Weights(path=self._orders.relative(self._store.models / value.model.path), digest=value.model.digest)
        result = TrainedMember(
            model=weights,
            errors=value.errors,
            steps=value.steps,
            history=tuple(value.history),
            seconds=outcome.seconds,
        )
        return Trained(**_ended(outcome), generation=about.generation, member=about.member, result=result)

    def _evaluated(
        self, order: Order, value: evaluate.Evaluated, about: Evaluating, state: State, outcome: Outcome
    ) -> Evaluated:
        result = Predictions(
            file=self._orders.relative(order.folder / value.file),
            digest=value.digest,
            generations=tuple(one.number for one in complete(state, about.generation)),
            potentials=tuple(architectures(self._potentials)) if len(self._potentials) > 1 else (),
            candidates=tuple(candidate.id for candidate in state.candidates if evaluated(candidate)),
        )
        return Evaluated(**_ended(outcome), generation=about.generation, result=result)

    def _verdict(self, error: dict[str, float] | None, deviation: float) -> Verdict:
        thresholds = self._settings.walking.errors
        if error is None:
            return Verdict(None, suspicious=False, reset=False, discard=False)
        return Verdict(
            error, thresholds.suspects(error, deviation), thresholds.resets(error), thresholds.discards(error)
        )

    def _prediction(self, structure: str) -> Plain | None:
        """The committee's prediction for a structure; None without one, or if it is lost."""
        try:
            prediction: Plain | None = self._store.structure(structure).get("prediction")
        except FileCorrupt:
            return None
        return prediction

    def _walker(self, order: Order, value: sample.Ended | sample.Lost) -> Moved | Fallen:
        if isinstance(value, sample.Lost):
            failed = self._with_request(order, value.failure)
            return Fallen(walker=value.walker, failed=failed, candidate=value.candidate)
        trajectory = value.trajectory
        return Moved(
            walker=value.walker,
            file=self._orders.relative(order.folder / value.file),
            digest=value.digest,
            steps=value.steps,
            stopped=value.stopped,
            finished=value.finished,
            cut=value.cut,
            averages=value.averages,
            trajectory=None if trajectory is None else self._orders.relative(order.folder / trajectory),
            candidate=value.candidate,
        )

    def _failed(self, order: Order, met: Failure, outcome: Outcome, state: State) -> Failed:
        task, host = order.task, host_of(outcome.worker)
        spent = state.attempts[task.id]
        elsewhere = False
        if of_host(met.type, met.reason):
            spent -= state.hosts.after(task.id, host, met.message).refunded(task.id)
            elsewhere = state.hosts.is_remote(host) and spent < ATTEMPTS
        again = elsewhere or self._settings.stopping.tries_again(task.kind, met.type, met.reason, spent)
        return Failed(**_ended(outcome), failed=self._with_request(order, met), again=again)

    def _interrupted(self, order: Order, met: Failure, outcome: Outcome, state: State) -> Interrupted:
        """A label within the budget is chosen anew, unless the schedule is sequential: its phases do not change."""
        about = order.task.about
        paid = isinstance(about, Labelling) and state.candidates[about.candidate].origin in PAID
        requeued = paid and state.closing is None and self._settings.schedule == "concurrent"
        return Interrupted(**_ended(outcome), reason=met.reason, message=met.message, requeued=requeued)

    def _with_request(self, order: Order, met: Failure) -> FailedTask:
        """A failure, after writing the task's request into its folder; with the reason if that fails."""
        request, unkept = order.request, None
        known = {"campaign": str(self._store.folder), "kind": request.kind, "request": request.to_plain()}
        try:
            write_sealed(order.folder / REQUEST, known)
        except OSError as error:
            unkept = str(error)
        journaled = met.model_copy(update={"fields": {}})  # message and reason contain them
        return FailedTask(failure=journaled, folder=self._orders.relative(order.folder), unkept=unkept)


@dataclass(frozen=True)
class Verdict:
    """The verdict of a label on the model that met its structure."""

    error: dict[str, float] | None
    suspicious: bool
    reset: bool
    discard: bool


def _ended(outcome: Outcome) -> dict[str, Any]:
    """The fields shared by the events of ended tasks."""
    return {"task": outcome.key, "seconds": outcome.seconds, "worker": outcome.worker}


def _error(labelled: Atoms, prediction: Plain | None) -> dict[str, float] | None:
    """A model's error at a labelled structure; None if its prediction is unknown or unreadable."""
    try:
        return None if prediction is None else error_at(labelled, prediction)
    except (KeyError, TypeError, ValueError):
        return None
