"""The times of the workers' tasks, and the rows of workers in the timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psiflow_core.learning.driver.request import Recorded
from psiflow_core.learning.machine.events import Evaluated, Labelled, Opened, Sampled, Scored, TaskEnded, Trained
from psiflow_core.learning.machine.tasks import TaskKind


@dataclass(frozen=True)
class Span:
    """A task on a worker."""

    session: int
    worker: str
    kind: str
    begin: float
    """On the campaign's own clock, which stands still while no driver runs. [s]"""
    seconds: float


KINDS: dict[type[TaskEnded], TaskKind] = {
    Labelled: "label",
    Trained: "train",
    Sampled: "sample",
    Scored: "score",
    Evaluated: "evaluate",
}
"""The kind of a task, by the event of its successful end."""


def spans(campaign: Recorded) -> list[Span]:
    """All tasks with known times; results that arrived after the death of their driver are left out."""
    tasks: list[Span] = []
    session, clock, last = -1, 0.0, 0.0
    begun = 0.0
    for event in campaign.events:
        what = event.what
        if isinstance(what, Opened):
            session, begun = session + 1, clock
        else:
            clock += event.time - last
        last = event.time
        if isinstance(what, TaskEnded) and type(what) in KINDS and what.worker and 0 < what.seconds <= clock - begun:
            tasks.append(Span(session, what.worker, KINDS[type(what)], clock - what.seconds, what.seconds))
    return tasks


def worker_rows(tasks: Sequence[Span], slots: Sequence[int]) -> dict[tuple[int, str], int]:
    """The row of each worker, by session and name; a replacement worker gets the row of the replaced one.

    Args:
        tasks: the tasks.
        slots: the number of workers of each session.
    """
    row_of: dict[tuple[int, str], int] = {}
    free_at: dict[tuple[int, int], float] = {}
    for span in sorted(tasks, key=lambda span: span.begin):
        key = (span.session, span.worker)
        if key not in row_of:
            taken = {row: end for (session, row), end in free_at.items() if session == span.session}
            full = len(taken) >= slots[span.session]
            row_of[key] = min(taken, key=taken.__getitem__) if full else len(taken)
        free_at[span.session, row_of[key]] = span.begin + span.seconds
    return row_of
