"""The entry point of workers: runs a task by its kind, with JSON data as input and output.

`carry_out` is the only function sent to workers. It never raises: a task ends with a result or a failure. A task writes
its outcome into its folder before it returns, so that the outcome survives the driver.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from psiflow_core.errors import FileCorrupt, Interrupted, WorkerLost
from psiflow_core.execution import scratch
from psiflow_core.execution.failures import Failure, failure
from psiflow_core.execution.tasks.check import CheckRequest
from psiflow_core.execution.tasks.engine import EngineRequest
from psiflow_core.execution.tasks.evaluate import EvaluationRequest
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.relax import RelaxationRequest
from psiflow_core.execution.tasks.request import Grant, Request, Result
from psiflow_core.execution.tasks.sample import SamplingRequest
from psiflow_core.execution.tasks.score import ScoreRequest
from psiflow_core.execution.tasks.survey import SurveyRequest
from psiflow_core.execution.tasks.train import TrainingRequest
from psiflow_core.execution.transport.away import carried
from psiflow_core.execution.transport.courier import Refused
from psiflow_core.execution.transport.ticket import Ticket
from psiflow_core.execution.transport.verdict import sending
from psiflow_core.files import LATE, write_sealed
from psiflow_core.potentials.remote import homes
from psiflow_core.processes import block, cores
from psiflow_core.processes.limits import end_children, is_worker, limited
from psiflow_core.structures import Plain

RESULT = "result.json"
"""The file in a task's folder that holds its outcome."""

REQUESTS: tuple[type[Request], ...] = (
    CheckRequest,
    EngineRequest,
    LabelRequest,
    TrainingRequest,
    SamplingRequest,
    RelaxationRequest,
    ScoreRequest,
    EvaluationRequest,
    IdleRequest,
    SurveyRequest,
)

KINDS: Mapping[str, type[Request]] = {request.kind: request for request in REQUESTS}
"""Every kind of task."""


def carry_out(kind: str, request: str, grant: str) -> str:
    """As `perform`, with JSON texts: Parsl pickles a text much faster than nested data."""
    return json.dumps(perform(kind, json.loads(request), json.loads(grant)))


def perform(kind: str, request: Plain, grant: Plain) -> Plain:
    """Run one task on this worker.

    Args:
        request: a request of the class in `KINDS` for this kind, as JSON data.
        grant: a `Grant`, as JSON data.

    Returns:
        `{"value": …}` or `{"failure": …}`, a `Result` of the kind's or a `Failure`, and with either of them `"seconds"`
        of wall time and `"worker"`, host and process.
    """
    cores.take()
    if grant.get("ticket") is None:
        return _kept(_performed(kind, request, grant), _folder(request))
    start = time.perf_counter()
    ticket, asked = Ticket.from_plain(grant["ticket"]), KINDS[kind].from_plain(request)
    try:
        return carried(ticket, asked, lambda local: _performed(kind, local, grant), _kept)
    except Refused as refused:
        failed = refused.failure
    except WorkerLost as lost:
        failed = failure(lost, reason="lost worker")
    except Exception as error:  # a full disk, a file that has changed on its way
        failed = failure(error)
    return _signed({"failure": failed.to_plain()}, start)


def _performed(kind: str, request: Plain, grant: Plain) -> Plain:
    start, folder = time.perf_counter(), _folder(request)
    outcome: Plain
    try:
        outcome = {"value": _value(kind, request, Grant.from_plain(grant), folder)}
    except BaseException as error:  # failures are returned as data, with the name of their type
        if isinstance(error, KeyboardInterrupt) and scratch.alone() and not is_worker():
            raise  # Ctrl-C of the user
        outcome = {"failure": failure(error, folder).to_plain()}
        end_children()
    return _signed(outcome, start)


def _folder(request: Plain) -> Path | None:
    return Path(request["folder"]) if request.get("folder") else None


def _signed(outcome: Plain, start: float) -> Plain:
    """An outcome with its wall time, its worker, and the process that started the worker."""
    worker, manager = f"{socket.gethostname()}:{os.getpid()}", os.environ.get("PARSL_WORKER_POOL_ID", "")
    return {**outcome, "seconds": time.perf_counter() - start, "worker": worker, "manager": manager}


def _value(kind: str, request: Plain, grant: Grant, folder: Path | None) -> Plain:
    place, limits = None if folder is None else str(folder), grant.resources._asdict()
    if not block.has_time(grant.takes):
        raise Interrupted(f"its block ends in {block.remaining():.0f} s")
    send = sending(folder, grant.ticket)
    with limited(place, limits, send), homes(grant.homes), _scratch(folder):
        return _run(KINDS[kind].from_plain(request), grant).to_plain()


def _run(request: Request, grant: Grant) -> Result:
    """Do the work of a request. Files of other machines that it begins with may take a while to appear."""
    deadline = time.monotonic() + LATE
    while True:
        try:
            return request.run(grant)
        except FileCorrupt as error:
            if not error.late or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


@contextlib.contextmanager
def _scratch(folder: Path | None) -> Iterator[None]:
    """Use the task's folder as working directory and for its output."""
    place = None if folder is None else folder.absolute()
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    with scratch.printing_to(place), scratch.inside(place):
        yield


def _kept(outcome: Plain, folder: Path | None) -> Plain:
    """The outcome, after writing it into the task's folder; a failure if the disk is full."""
    if folder is None:
        return outcome
    try:
        write_sealed(folder / RESULT, outcome)
    except OSError as error:
        full: Failure = failure(error)
        return {**outcome, "value": None, "failure": full.to_plain()}
    return outcome
