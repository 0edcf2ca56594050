"""Existing outcomes: in the folder of a task, or as a label in a store."""

from __future__ import annotations

from psiflow_core.errors import FileCorrupt
from psiflow_core.execution.failures import MACHINE, WRONG
from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.perform import RESULT
from psiflow_core.execution.tasks.relax import Relaxed
from psiflow_core.execution.tasks.request import Outcome, Request, Result
from psiflow_core.execution.tasks.sample import Ended, Lost, Sampled, SamplingRequest
from psiflow_core.files import read_sealed
from psiflow_core.labels.store import has_label, read_structure

KEPT = (("ReferenceFailed", "unconverged"), ("ReferenceFailed", "bad input"), ("TrainingFailed", "error"))
"""Type and reason of failures that are kept as results: the same task would fail again."""


def known(request: Request) -> Outcome | None:
    """The outcome of a request, if it exists with intact files."""
    key = str(request.own_folder)
    if isinstance(request, LabelRequest) and any(map(has_label, request.files)):
        return Outcome(key, Labelled(cached=True), None)
    try:
        found = Outcome.read(key, request, read_sealed(request.own_folder / RESULT))
    except FileCorrupt:
        return None
    if found.failure is not None:
        return found if (found.failure.type, found.failure.reason) in KEPT else None
    return found if found.value is not None and _can_be_used(request, found.value) else None


def _can_be_used(request: Request, value: Result) -> bool:
    if isinstance(value, Labelled) or (isinstance(value, Relaxed) and value.computed_by is not None):
        return False  # the label is gone, or another process computed it
    if isinstance(value, Sampled) and not all(_stays(request, one) for one in value.walkers):
        return False
    try:
        for file in request.result_files(value):
            file.verified()
    except FileCorrupt:
        return False
    return True


def _stays(request: Request, one: Ended | Lost) -> bool:
    """Whether the result of a walker is final, and its candidate can be read."""
    assert isinstance(request, SamplingRequest)
    if isinstance(one, Lost) and (one.failure.type in WRONG or one.failure.reason in (*MACHINE, "disk")):
        return False  # the plugin may have been corrected since, and the machine may have more room
    try:
        if one.candidate is not None:
            read_structure(request.candidates, one.candidate.structure)
    except FileCorrupt:
        return False
    return True
