"""Errors of a trained potential on labelled structures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ase import Atoms

from psiflow_core.errors import OptionError, TaskFailed
from psiflow_core.execution.tasks.evaluate import Evaluated, EvaluationRequest
from psiflow_core.execution.tasks.manifest import EvaluationLabels, ManifestFile
from psiflow_core.execution.verbs.dispatcher import Dispatcher
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.inputs import awaited, model_of
from psiflow_core.files import read_json
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.store import keep_given
from psiflow_core.potentials.metrics import TOTAL, ErrorTable, errors_by_set


def evaluate(dispatcher: Dispatcher, model: Any, data: Any) -> Handle[ErrorTable, ErrorTable]:
    """As `Context.evaluate`."""
    handle: Handle[ErrorTable, ErrorTable] = Handle("evaluate")
    dispatcher.start(_evaluation(dispatcher, model, data), handle)
    return handle


async def _evaluation(dispatcher: Dispatcher, model: Any, data: Any) -> ErrorTable:
    places = dispatcher.places
    committee = model_of(await awaited(model), "model")
    names, structures = _labelled(await _all_awaited(data))
    files = tuple(keep_given(places.given, atoms) for atoms in structures)
    manifest = ManifestFile.write(places.tasks, "evaluate", EvaluationLabels(structures=files), places.folder)
    request = places.place(EvaluationRequest(labels=manifest, committees=(tuple(committee.members),)))
    outcome = await dispatcher.finished(request)
    if outcome.failure is not None:
        raise TaskFailed(f"the model could not be evaluated: {outcome.failure.told} (see {request.own_folder})")
    assert isinstance(outcome.value, Evaluated)
    (said,) = read_json(request.own_folder / outcome.value.file, ("predictions",))["predictions"]
    return errors_by_set(structures, said, names)


async def _all_awaited(data: Any) -> Any:
    given = await awaited(data)
    return {name: await awaited(one) for name, one in given.items()} if isinstance(given, Mapping) else given


def _labelled(data: Any) -> tuple[list[str | None], list[Atoms]]:
    """The labelled structures, each after the name of its set: the given one, or the subset of its provenance."""
    if not isinstance(data, Mapping):
        known = _only_labelled(data)
        subsets = [one.extra.get("subset") for one in known.provenance]
        names, structures = [None if one is None else str(one) for one in subsets], list(known)
    else:
        if TOTAL in data:
            raise OptionError(f"data: '{TOTAL}' is the set of all structures; give this one another name")
        pairs = [(str(name), atoms) for name, one in data.items() for atoms in _only_labelled(one)]
        names, structures = [name for name, _ in pairs], [atoms for _, atoms in pairs]
    if not structures:
        raise OptionError("data: there is no labelled structure in it; context.label(…) gives labels")
    return names, structures


def _only_labelled(given: Any) -> Dataset:
    return (given if isinstance(given, Dataset) else Dataset(given)).labelled
