"""What a disk has damaged of a campaign: found by hash when a driver opens it, and told to the journal.

What is damaged is taken back: its label is computed again, its model trained again, its walker starts over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from psiflow_core.errors import LabelCorrupt, ModelCorrupt
from psiflow_core.learning.campaign import State
from psiflow_core.models import ModelFile
from psiflow_core.store import Store
from psiflow_core.structures import Plain
from psiflow_core.tasks import read_label


def damage(state: State, store: Store) -> Plain | None:
    """The data of a `damaged` event: what of the campaign is missing, or is not what was recorded; None if all is well.

    A label that cannot be believed is renamed, so that nobody takes it for one.
    """
    labels = [candidate.id for candidate in state.candidates if candidate.file and not _sound(store, candidate.file)]
    models = [
        [generation.number, number]
        for generation in state.generations
        for number, member in generation.members.items()
        if not _intact(store, member["model"])
    ]
    walkers = [
        walker.id
        for walker in state.walkers
        if walker.file and not _intact(store, {"file": walker.file, "digest": walker.digest})
    ]
    evaluation = state.evaluation is not None and not _intact(store, state.evaluation)
    found: Plain = {"labels": labels, "models": models, "walkers": walkers, "evaluation": evaluation}
    if not any(found.values()):
        return None
    return found | {"files": list(_files(state, found))}


def unreadable(state: State, store: Store) -> list[int]:
    """Candidates that wait for a label and of which the structure is lost."""
    waiting = [candidate for candidate in state.candidates if candidate.status in ("queued", "labelling")]
    return [candidate.id for candidate in waiting if not _readable(store, candidate.structure)]


def _files(state: State, found: Plain) -> Iterator[str]:
    """The files, for a person to see."""
    yield from (state.candidates[number].file or "" for number in found["labels"])
    for generation, member in found["models"]:
        yield state.generations[generation].members[member]["model"]["path"]
    yield from (state.walkers[number].file or "" for number in found["walkers"])
    if found["evaluation"]:
        yield (state.evaluation or {})["file"]


def _sound(store: Store, file: str) -> bool:
    path = store.absolute(file)
    try:
        read_label(path)
    except LabelCorrupt:
        if path.is_file():
            path.rename(path.with_suffix(".damaged"))
        return False
    return True


def _intact(store: Store, recorded: Plain) -> bool:
    path: Path = store.absolute(recorded.get("path") or recorded["file"])
    try:
        ModelFile(path, recorded["digest"]).verified()
    except ModelCorrupt:
        return False
    return True


def _readable(store: Store, structure: str) -> bool:
    try:
        store.structure(structure)
    except (FileNotFoundError, json.JSONDecodeError):
        store.forget_structure(structure)
        return False
    return True
