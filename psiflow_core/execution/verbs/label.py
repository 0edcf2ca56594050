"""Labels of structures by a reference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ase import Atoms

from psiflow_core.checks import problem_of
from psiflow_core.components import Component, Spec
from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.execution.verbs.dispatcher import Dispatcher
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.inputs import Tolerance, awaited, component, computed_entries, entries_of
from psiflow_core.files import make_durable
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.frames import Held
from psiflow_core.labels.provenance import Entry, Failure
from psiflow_core.labels.store import read_label
from psiflow_core.structures import bare, label_of, with_label


def label(
    dispatcher: Dispatcher, structures: Any, reference: Spec | Component | str, tolerate: float | int
) -> Handle[Dataset, Atoms]:
    """As `Context.label`."""
    spec, tolerance = component("reference", reference, "reference"), Tolerance(tolerate)
    given = structures if isinstance(structures, Handle) else entries_of(structures, "structures")
    handle: Handle[Dataset, Atoms] = Handle("label")
    dispatcher.start(_labels(dispatcher, given, spec, tolerance, handle), handle)
    return handle


async def _labels(
    dispatcher: Dispatcher, given: Any, reference: Spec, tolerance: Tolerance, handle: Handle[Dataset, Atoms]
) -> Dataset:
    entries: Sequence[Entry] = computed_entries(await awaited(given)) if isinstance(given, Handle) else given
    labels = asyncio.gather(*(_entry(dispatcher, entry, reference, handle) for entry in entries))
    data = Dataset.of(Held(entry) for entry in await labels)
    tolerance.refuse([str(failed) for failed in data.failures], len(data), "labels")
    return data


async def _entry(dispatcher: Dispatcher, entry: Entry, reference: Spec, handle: Handle[Dataset, Atoms]) -> Entry:
    outcome = await labelled(dispatcher, entry.structure, reference)
    provenance = replace(entry.provenance, reference=reference)
    if isinstance(outcome, Atoms):
        handle.finished_part(outcome)
        return Entry(outcome, provenance)
    unlabelled = entry.structure.copy()
    return Entry(unlabelled, provenance, outcome)


async def labelled(dispatcher: Dispatcher, structure: Atoms, reference: Spec) -> Atoms | Failure:
    """The structure with its label, stored or computed; or the failure."""
    if problem := problem_of(structure):
        return Failure("bad input", problem)
    places = dispatcher.places
    request = places.place(
        LabelRequest(reference=reference, structure=bare(structure), labels=places.labels, own_labels=places.own_labels)
    )
    outcome = await dispatcher.finished(request)
    while _is_computed_elsewhere(outcome):
        await dispatcher.released(request.claim)
        outcome = await dispatcher.finished(request)
    if outcome.failure is not None:
        return Failure(outcome.failure.reason, outcome.failure.told)
    if isinstance(outcome.value, Labelled) and not outcome.value.cached:
        await asyncio.to_thread(make_durable, request.file)
    return with_label(structure, label_of(read_label(request.file)[0]))


def _is_computed_elsewhere(outcome: Outcome) -> bool:
    return isinstance(outcome.value, Labelled) and outcome.value.computed_by is not None
