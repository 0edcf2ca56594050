"""How tasks end: by a worker's answer, by a failure of the machine, or together with their block."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import dataclass

from psiflow_core import answers
from psiflow_core.errors import Interrupted
from psiflow_core.execution.failures import failure
from psiflow_core.execution.tasks.request import Outcome, Request
from psiflow_core.processes.block import INTERRUPTED
from psiflow_core.processes.limits import read_verdict

LOST = {"WorkerLost", "ManagerLost", "BadStateException", "TooManyJobFailuresError", "Again"}
"""Parsl's exceptions and messages for failures of the machine, not of the task."""


@dataclass(frozen=True)
class Loss:
    """What is known of the machine on which a task was lost."""

    host: str = ""
    """Empty if it is not known."""
    interrupted: bool = False
    """Whether its block has reached its end, or its scheduler has ended it."""
    words: str = ""
    """The scheduler's own words on the block's end."""


Answer = str | BaseException
"""A worker's answer to a task, as JSON; or the error of a task without an answer."""


def answer_of(done: Future[str]) -> Answer:
    """The answer to a task that has ended, without its future, which takes more memory."""
    return done.exception() or done.result()


def lost(answer: Answer) -> BaseException | None:
    """The error of a task whose worker was lost; None for any other."""
    return answer if isinstance(answer, BaseException) and type(answer).__name__ in LOST else None


def answered(key: str, request: Request, answer: Answer) -> Outcome:
    """The outcome of a task that a worker has ended, or that could not be sent."""
    if isinstance(answer, str):
        return Outcome.read(key, request, json.loads(answer))
    return Outcome(key, None, failure(answer, request.folder))


def gone(key: str, request: Request, error: BaseException, loss: Loss) -> Outcome:
    """The outcome of a task whose worker was lost.

    The guard's reason comes first: it has ended the task, or has seen the end of the block.
    """
    verdict = read_verdict(request.folder) if request.folder else None
    worker = f"{loss.host}:" if loss.host else ""
    if verdict is None and loss.interrupted:
        verdict = INTERRUPTED, f"its block was ended by its scheduler{f': {loss.words}' if loss.words else ''}"
    if verdict is not None and verdict[0] == INTERRUPTED:
        ended = Interrupted(verdict[1])
        return Outcome(key, None, failure(ended, request.folder, reason=INTERRUPTED), worker=worker)
    ran = " with ".join(map(answers.named, request.needs)) or request.kind
    reason, message = verdict or ("lost worker", f"{error}; it ran {ran}, which may have ended it")
    return Outcome(key, None, failure(error, request.folder, reason=reason, message=message), worker=worker)
