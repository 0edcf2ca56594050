"""Damaged files of a campaign: found by hash when a driver opens it, recorded in the journal, reported to the user.

Damaged results are discarded: a label is computed again, a model trained again, a walker starts over. A structure is
restored from its label or from the request; a walker's structure without a label is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from psiflow_core.components import Spec
from psiflow_core.errors import CampaignError, LabelCorrupt, ModelCorrupt
from psiflow_core.files import put_aside
from psiflow_core.labels.store import by_key, has_label, label_key, read_label, structure_file
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.events import Damaged
from psiflow_core.learning.machine.state import State
from psiflow_core.potentials.trained import ModelFile
from psiflow_core.structures import digest

SHOWN = 5
"""Files named in one line."""


def tell(folder: Path, files: Sequence[str], what: str) -> None:
    """Warn in one line of damaged files of a campaign and of the remedy; without files, do nothing.

    Args:
        files: as the journal names them.
    """
    if not files:
        return
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    warnings.warn(f"damaged or gone in {folder}: {', '.join(files[:SHOWN])}{more}; {what}", stacklevel=2)


def expected_files(state: State, store: Store) -> Iterator[Path]:
    """The files of the campaign that its journal names."""
    models = (member.model.path for one in state.generations for member in one.members.values())
    labels = (candidate.file for candidate in state.candidates)
    evaluation = None if state.evaluation is None else state.evaluation.file
    named = (*labels, *models, *(walker.file for walker in state.walkers), evaluation)
    yield from (store.absolute(file) for file in named if file is not None)
    yield from (structure_file(store.structures, candidate.structure) for candidate in state.candidates)


def damage(state: State, store: Store) -> Damaged | None:
    """The event about missing and damaged files of the campaign; None if all files are intact.

    A damaged label of the campaign's own store is renamed, so that a person can look at it.
    """
    candidates, walkers, evaluation = state.candidates, state.walkers, state.evaluation
    labels = [candidate for candidate in candidates if candidate.file and not _sound(store, candidate.file)]
    models = [
        (generation.number, number)
        for generation in state.generations
        for number, member in generation.members.items()
        if not _intact(store, member.model.path, member.model.digest)
    ]
    lost = [walker for walker in walkers if walker.file and not _intact(store, walker.file, walker.digest or "")]
    unpredicted = evaluation is not None and not _intact(store, evaluation.file, evaluation.digest)
    files = [candidate.file for candidate in labels]
    files += [state.generations[generation].members[member].model.path for generation, member in models]
    files += [*(walker.file for walker in lost), evaluation.file if evaluation and unpredicted else None]
    if not any(files):
        return None
    return Damaged(
        files=tuple(file for file in files if file is not None),
        labels=tuple(candidate.id for candidate in labels),
        models=tuple(models),
        walkers=tuple(walker.id for walker in lost),
        evaluation=unpredicted,
    )


def mend_structures(state: State, store: Store, reference: Spec) -> list[str]:
    """Restore missing and damaged structures from their labels; returns the restored files."""
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
    """Candidates without a label whose structure is lost."""
    waiting = [candidate for candidate in state.candidates if candidate.status in ("queued", "labelling")]
    return [candidate for candidate in waiting if not store.has_structure(candidate.structure)]


def unknown_labels(state: State, store: Store, reference: Spec) -> Iterator[Path]:
    """Intact labels of this reference that belong to no candidate, though the campaign computed them.

    They are all labels of the campaign's own store, and in a shared store the labels of structures that walkers of
    this campaign met. Only files with unknown names are read.
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
    """Whether a label is intact, and is of this reference."""
    try:
        structure, record = read_label(file)
    except LabelCorrupt:
        return False
    return "reference" in record and label_key(reference, digest(structure)) == file.stem


def _label_of(candidate: Candidate, store: Store, reference: Spec) -> Path | None:
    """The file of a candidate's label; it may exist before the campaign knows of it."""
    key = label_key(reference, candidate.structure)
    known = [store.absolute(candidate.file)] if candidate.file else []
    files = [*known, *(by_key(labels, key) for labels in (store.labels, store.own_labels))]
    return next(filter(has_label, files), None)


def _sound(store: Store, file: str) -> bool:
    path = store.absolute(file)
    try:
        read_label(path)
    except LabelCorrupt as error:
        if path.is_relative_to(store.folder) and path.exists() and not error.barred:
            put_aside(path)
        return False
    return True


def _intact(store: Store, file: str, known: str) -> bool:
    try:
        ModelFile(store.absolute(file), known).verified()
    except ModelCorrupt:
        return False
    return True


def no_disk(folder: Path, message: str) -> CampaignError:
    """The error of a full disk."""
    return CampaignError(
        f"the campaign in {folder} has stopped: {message}. Free some space and run the same again: "
        "finished tasks are kept"
    )
