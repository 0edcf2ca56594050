"""`psiflow.log`: the decisions of a driver and their reasons, one per line, for people.

It is never read back: the state of a campaign is in its journal. A campaign goes on if its log cannot be written.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import singledispatchmethod
from pathlib import Path

from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.events import (
    Adopted,
    Closing,
    Damaged,
    Evaluated,
    Event,
    Failed,
    Fallen,
    Finished,
    Happening,
    Interrupted,
    Labelled,
    Opened,
    Proposed,
    Sampled,
    Scored,
    Started,
    Trained,
)
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import About, Labelling, MemberTraining, Sampling, Scoring
from psiflow_core.learning.machine.termination import REASONS
from psiflow_core.learning.machine.walkers import WalkerRecord
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.texts import said_by

logger = logging.getLogger("psiflow.driver")


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Log the error or the interrupt that ends a session."""
    try:
        yield
    except KeyboardInterrupt:
        logger.info("the session was stopped")
        raise
    except Exception as error:
        logger.error("the session has ended: %s: %s", type(error).__name__, said_by(error))
        raise


class Log:
    """Describes each event of the journal."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._resets: dict[int, Counter[str]] = {}
        """By walker: the reasons for starting over that were logged so far."""
        self._dropped = self._count_dropped()
        self._news()

    def event(self, event: Event) -> None:
        """Log an event that has been applied to the state."""
        self._describe(event.what)

    def restarted(self, task: str, attempt: int) -> None:
        """Log a task that was running when an earlier session ended."""
        logger.info("%s was running when the last session ended: started again (attempt %d)", task, attempt)

    def found(self, task: str) -> None:
        """Log a task whose outcome exists already."""
        logger.info("%s is not computed: its outcome exists already", task)

    def excluded(self, host: str, last: str) -> None:
        """Log a host that gets no more tasks."""
        logger.warning("host %s is excluded: several tasks in a row failed on it; the last: %s", host, last)

    def waits(self, task: str, label: Path) -> None:
        """Log a task that waits for a label of another campaign."""
        logger.info("%s waits for another campaign, which is computing the label %s", task, label.name)

    @singledispatchmethod
    def _describe(self, what: Happening) -> None:
        raise TypeError(f"the log has no words for events of the kind '{what.kind}'")

    @_describe.register
    def _(self, what: Opened) -> None:
        versions = ", ".join(f"{name} {version}" for name, version in what.versions.items())
        slots = ", ".join(f"{pool}: {count}" for pool, count in what.slots.items())
        logger.info("session %d on %s: %s; workers %s", len(self._state.opened), what.host, versions, slots)

    @_describe.register
    def _(self, what: Proposed) -> None:
        origins = Counter(proposal.origin for proposal in what.candidates)
        counts = ", ".join(f"{count} of origin {origin}" for origin, count in origins.items())
        logger.info("candidates proposed: %s", counts or "none")

    @_describe.register
    def _(self, what: Started) -> None:
        task, again = what.task, self._state.attempts[what.task.id]
        if isinstance(task.about, MemberTraining) and task.about.upto is not None and again == 1:
            logger.info("generation %d is due: %s", task.about.generation, self._due(task.about))
        attempt = f" (attempt {again})" if again > 1 else ""
        logger.info("%s started%s: %s", task.id, attempt, self._about(task.about))

    @_describe.register
    def _(self, what: Labelled) -> None:
        candidate = self._state.candidates[what.candidate]
        source = "taken from the label store" if what.cached else f"computed in {what.seconds:.1f} s"
        verdict = f"; {candidate.reason}" if candidate.suspicious or candidate.discarded else ""
        logger.info("%s: label %s%s", what.task, source, verdict)
        if what.reset or what.discard:
            self._tell_resets(self._state.walkers)

    @_describe.register
    def _(self, what: Trained) -> None:
        generation = self._state.generations[what.generation]
        ready = f"; generation {generation.number} is complete" if generation.complete else ""
        logger.info("%s trained in %.1f s%s", what.task, what.seconds, ready)

    @_describe.register
    def _(self, what: Adopted) -> None:
        logger.info("generation 0 is the given model of %d members", len(what.members))

    @_describe.register
    def _(self, what: Sampled) -> None:
        for moved in what.walkers:
            walker = self._state.walkers[moved.walker]
            if isinstance(moved, Fallen):
                logger.warning("%s: walker %d failed: %s", what.task, walker.id, moved.failed.failure.message)
            elif walker.waiting_for is not None:
                waits = "%s: walker %d waits for a model that knows candidate %d"
                logger.info(waits, what.task, walker.id, walker.waiting_for)
            else:
                logger.debug("%s: walker %d moved %d steps", what.task, walker.id, moved.steps)
        self._tell_resets([self._state.walkers[moved.walker] for moved in what.walkers])

    @_describe.register
    def _(self, what: Scored) -> None:
        before, self._dropped = self._dropped, self._count_dropped()
        logger.info("%s: %d of %d queued candidates dropped", what.task, self._dropped - before, len(what.deviations))

    def _count_dropped(self) -> int:
        """The number of walkers' candidates that a newer model knows already."""
        return sum(candidate.reason.startswith("known to") for candidate in self._state.candidates.of("walker"))

    @_describe.register
    def _(self, what: Evaluated) -> None:
        logger.info("%s: all generations evaluated", what.task)

    @_describe.register
    def _(self, what: Failed) -> None:
        becomes, failure = "tried again" if what.again else "given up", what.failed.failure
        logger.warning("%s failed (%s): %s; %s", what.task, failure.reason, failure.message, becomes)
        self._tell_resets(self._state.walkers)

    @_describe.register
    def _(self, what: Interrupted) -> None:
        becomes = "queued again" if what.requeued else "goes on in another block"
        logger.info("%s %s: %s; it %s", what.task, what.reason, what.message, becomes)

    @_describe.register
    def _(self, what: Damaged) -> None:
        logger.warning("damaged or missing, and discarded: %s", ", ".join(what.files))
        self._tell_resets(self._state.walkers)

    @_describe.register
    def _(self, what: Closing) -> None:
        logger.info("sampling and labelling end: %s", REASONS[what.reason])

    @_describe.register
    def _(self, what: Finished) -> None:
        least = logging.ERROR if what.reason == "failed" else logging.INFO
        logger.log(least, "the campaign has ended (%s): %s", what.reason, what.message)

    def _due(self, about: MemberTraining) -> str:
        known = max((one.known for one in self._state.generations if one.complete), default=0)
        new = len(about.upto or ()) - known
        if about.final:
            return f"labelling has ended, and {new} labels are new to the last model"
        if known == 0:
            return f"the first {new} labels are complete"
        enough = "enough" if self._settings.training.due(new, known) else "few, but no other task is possible"
        return f"{new} new labels in addition to {known}, which is {enough}"

    def _about(self, about: About) -> str:
        if isinstance(about, Labelling):
            return _described(self._state.candidates[about.candidate])
        if isinstance(about, Sampling):
            return f"walkers {', '.join(map(str, about.walkers))} under generation {about.generation}"
        if isinstance(about, Scoring):
            return f"{len(about.candidates)} queued candidates under generation {about.generation}"
        return f"generation {about.generation}"

    def _tell_resets(self, walkers: Sequence[WalkerRecord]) -> None:
        for walker, reason in self._news(walkers):
            logger.info("walker %d starts over: %s", walker, reason)

    def _news(self, walkers: Sequence[WalkerRecord] | None = None) -> list[tuple[int, str]]:
        """Walkers that have started over since the last call, with the reason."""
        news: list[tuple[int, str]] = []
        for walker in self._state.walkers if walkers is None else walkers:
            before, now = self._resets.get(walker.id, Counter()), walker.resets
            news += [(walker.id, reason) for reason in (now - before)]
            self._resets[walker.id] = now.copy()
        return news


def _described(candidate: Candidate) -> str:
    if candidate.origin != "walker":
        return f"candidate {candidate.id} of origin {candidate.origin}"
    return f"candidate {candidate.id} of walker {candidate.walker}, deviation {candidate.deviation:.3f} eV/Å"
