"""What a disk has damaged of a campaign: found by hash when a driver opens it, and told to the journal and the user.

What is damaged is taken back: its label is computed again, its model trained again, its walker starts over. A
structure comes back from its label, or from the request; one that a walker met and nobody has labelled is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from psiflow_core.components import Spec
from psiflow_core.errors import LabelCorrupt, ModelCorrupt
from psiflow_core.files import put_aside
from psiflow_core.learning.campaign import Candidate, State
from psiflow_core.models import ModelFile
from psiflow_core.store import Store
from psiflow_core.structures import Plain, digest
from psiflow_core.tasks import by_key, has_label, label_key, read_label, structure_file

SHOWN = 5
"""Files that one line names."""


def tell(folder: Path, files: Sequence[str], what: str) -> None:
    """Say in one line that files of a campaign cannot be believed, and what becomes of it; nothing if there are none.

    Args:
        files: as the journal names them.
    """
    if not files:
        return
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    warnings.warn(f"damaged or gone in {folder}: {', '.join(files[:SHOWN])}{more}; {what}", stacklevel=2)


def damage(state: State, store: Store) -> Plain | None:
    """The data of a `damaged` event: what of the campaign is missing, or is not what was recorded; None if all is well.

    A label of the campaign's own that cannot be believed gets another name: a person may want to look at it.
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


def mend_structures(state: State, store: Store, reference: Spec) -> list[str]:
    """Write those structures again that cannot be believed and that a label still tells; returns their files."""
    mended = []
    for candidate in state.candidates:
        if store.has_structure(candidate.structure):
            continue
        label = _label_of(candidate, store, reference)
        if label is not None:
            store.put_structure(read_label(label)[0].copy())
            mended.append(store.relative(str(structure_file(store.structures, candidate.structure))))
    return mended


def unreadable(state: State, store: Store) -> list[Candidate]:
    """Candidates that wait for a label and of which the structure is lost."""
    waiting = [candidate for candidate in state.candidates if candidate.status in ("queued", "labelling")]
    return [candidate for candidate in waiting if not store.has_structure(candidate.structure)]


def unknown_labels(state: State, store: Store, reference: Spec) -> Iterator[Path]:
    """Sound labels of this reference that no candidate knows of, though the campaign paid for them.

    Those are all in the campaign's own store; in one that others use too, those of structures that walkers of this
    campaign met. Only what has a name that is not known is read.
    """
    keys = {label_key(reference, candidate.structure) for candidate in state.candidates}
    known = keys | {Path(candidate.file).stem for candidate in state.candidates if candidate.file}
    for file in sorted(store.own_labels.glob("*/*.json")):
        if file.stem not in known and _is_of(file, reference):
            known.add(file.stem)
            yield file
    if store.labels == store.own_labels:
        return
    for structure in sorted(store.structures.glob("*/*.json")):
        key = label_key(reference, structure.stem)
        if key not in known and has_label(by_key(store.labels, key)):
            yield by_key(store.labels, key)


def _is_of(file: Path, reference: Spec) -> bool:
    """Whether a label can be believed, and is of this reference."""
    try:
        structure, record = read_label(file)
    except LabelCorrupt:
        return False
    return "reference" in record and label_key(reference, digest(structure)) == file.stem


def _label_of(candidate: Candidate, store: Store, reference: Spec) -> Path | None:
    """Where the label of a candidate is; it may be there although the campaign does not know of it yet."""
    key = label_key(reference, candidate.structure)
    known = [store.absolute(candidate.file)] if candidate.file else []
    there = [*known, *(by_key(labels, key) for labels in (store.labels, store.own_labels))]
    return next(filter(has_label, there), None)


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
    except LabelCorrupt as error:
        if path.is_relative_to(store.folder) and path.exists() and not error.barred:
            put_aside(path)
        return False
    return True


def _intact(store: Store, recorded: Plain) -> bool:
    path: Path = store.absolute(recorded.get("path") or recorded["file"])
    try:
        ModelFile(path, recorded["digest"]).verified()
    except ModelCorrupt:
        return False
    return True
