"""Stored labels and structures, named by their content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from psiflow_core.components import (
    Spec,
)
from psiflow_core.errors import FileCorrupt, LabelCorrupt
from psiflow_core.files import (
    believing,
    read_sealed,
    write_sealed,
)
from psiflow_core.structures import Label, Plain, digest, from_plain, label_of, sha256, to_plain, with_label


def label_key(reference: Spec, structure: str) -> str:
    """The key of a label: a hash of the reference with its version, and of the structure's content hash."""
    return sha256([reference.digest, structure])


def given_key(labelled: Atoms) -> str:
    """The key of a label of an unknown reference: a hash of the structure's content hash and the label itself."""
    return sha256([digest(labelled), label_of(labelled).to_plain()])


def given_file(folder: Path, labelled: Atoms) -> Path:
    """The file of a label of an unknown reference."""
    return folder / f"{given_key(labelled)}.json"


def keep_given(folder: Path, labelled: Atoms) -> Path:
    """Store a label of an unknown reference, unless it is stored already; returns its file."""
    file = given_file(folder, labelled)
    if not has_label(file):
        write_label(file, {"structure": to_plain(with_label(labelled, label_of(labelled))), "seconds": 0.0})
    return file


def by_key(folder: Path, key: str) -> Path:
    """The file of a label or structure in its store, which has subfolders of manageable size."""
    return folder / key[:2] / f"{key}.json"


def label_file(labels: Path, reference: Spec, structure: Atoms) -> Path:
    """The file of a structure's label, whether or not it exists."""
    return by_key(labels, label_key(reference, digest(structure)))


def label_place(files: Sequence[Path]) -> Path:
    """The file for a new label: the first one that this user may write.

    A shared store may hold a label that this user may not read; such a label must not be replaced.
    """
    *shared, own = files
    return next((file for file in shared if not is_barred(file) and _takes(file.parent)), own)


def label_landing(file: Path, shared: Path, own: Path | None) -> Path:
    """The place of a new label's file: in the own store if it is of a shared one that this user may not write."""
    if own is None or not file.is_relative_to(shared):
        return file
    return label_place([file, own / file.relative_to(shared)])


def _takes(folder: Path) -> bool:
    """Whether this user may write into a folder, or make it."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    return os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def claim_file(label: Path) -> Path:
    """The claim of the process that computes a label, next to the label's file."""
    return label.with_suffix(".claim")


def write_label(file: Path, record: Plain, durable: bool = True) -> None:
    """Write the record of a labelled structure, sealed with a hash."""
    write_sealed(file, record, durable)


def read_label(file: str | Path) -> tuple[Atoms, Plain]:
    """A labelled structure and its record: reference, seconds.

    Raises:
        LabelCorrupt: the file is missing, cannot be read, or has changed since it was written.
    """
    file = Path(file)
    record = read_sealed(file, LabelCorrupt)
    with believing(file, LabelCorrupt):
        structure = from_plain(record["structure"])
        label_of(structure)
        float(record["seconds"])
        key = given_key(structure)
        if "reference" in record:
            key = label_key(Spec.from_plain(record["reference"]), digest(structure))
    if key != file.stem:
        raise LabelCorrupt(f"label {file} is damaged: its content belongs to another name")
    return structure, record


def read_labels(files: Sequence[Path]) -> list[Atoms]:
    """Labelled structures, from the files that `label` wrote; raises `LabelCorrupt`."""
    return [read_label(file)[0] for file in files]


def has_label(file: Path) -> bool:
    """Whether a file holds an intact label."""
    try:
        read_label(file)
    except LabelCorrupt:
        return False
    return True


def is_barred(file: Path) -> bool:
    """Whether a file exists that this user may not read."""
    try:
        read_label(file)
    except LabelCorrupt as error:
        return error.barred
    return False


def structure_file(structures: Path, key: str) -> Path:
    """The file of a candidate's structure, by its content hash."""
    return by_key(structures, key)


def write_structure(structures: Path, structure: Atoms, **more: Plain) -> None:
    """Store a structure, with data about its origin as a candidate."""
    file = structure_file(structures, digest(structure))
    write_sealed(file, {"structure": to_plain(structure), **more})


def read_structure(structures: Path, key: str) -> Plain:
    """The record that `write_structure` wrote, by the structure's content hash.

    Raises:
        FileCorrupt: the file is missing, cannot be read, or its content does not belong to its name.
    """
    file = structure_file(structures, key)
    record = read_sealed(file)
    with believing(file):
        found = digest(from_plain(record["structure"]))
    if found != key:
        raise FileCorrupt(f"{file} is damaged: its content belongs to another name")
    return record


def trustworthy(found: Label, structure: Atoms) -> bool:
    """Whether all values of a label are finite, and have the shapes for the structure."""
    shapes = found.forces.shape == (len(structure), 3)
    stress = found.stress is None or (found.stress.shape == (6,) and bool(np.isfinite(found.stress).all()))
    return bool(shapes and stress and np.isfinite(found.energy) and np.isfinite(found.forces).all())
