"""Export, import and copy of labels: to extended XYZ and back, exact to the last bit, and from store to store."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

from psiflow_core.checks import problem_of
from psiflow_core.components import Spec
from psiflow_core.errors import CampaignError, LabelCorrupt, StructureError
from psiflow_core.files import write_atomically
from psiflow_core.labels.exact import OWN, SUFFIXES
from psiflow_core.labels.foreign import Names, labelled, same_label
from psiflow_core.labels.reading import read
from psiflow_core.labels.roundtrip import (
    ENTRY_HASH,
    HASH,
    entry_record,
    record_frame,
    restored_entry,
    restored_record,
)
from psiflow_core.labels.store import has_label, is_barred, label_file, read_label, trustworthy, write_label
from psiflow_core.structures import Plain, digest, from_plain, label_of, to_plain


@dataclass
class Moved:
    """The outcome of copying labels."""

    put: int = 0
    there: int = 0
    """How many of the labels existed already."""
    problems: list[str] = field(default_factory=list)
    """The reason for each label that was not copied."""


def label_files(folder: Path) -> list[Path]:
    """The files of the labels in a store, ordered by key.

    Raises:
        StructureError: the folder is not a label store.
    """
    if not folder.is_dir():
        raise StructureError(f"there is no folder {folder}: give a campaign's folder or a label store")
    require_store(folder)
    return sorted(folder.glob("[0-9a-f][0-9a-f]/*.json"))


def require_store(folder: Path) -> None:
    """Refuse a folder that holds anything but labels; a folder that does not exist yet is accepted.

    Raises:
        StructureError: it is a campaign's folder, or has other files in it.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StructureError(f"{folder} is a file; give the folder of a label store")
    foreign = sorted(one.name for one in folder.iterdir() if not re.fullmatch(r"[0-9a-f]{2}|\..*", one.name))
    if foreign:
        inside = f"; give {folder / 'labels'}" if (folder / "labels").is_dir() else ""
        raise StructureError(f"{folder} is not a label store: '{foreign[0]}' is in it{inside}")


def read_record(file: Path) -> Plain:
    """The stored record of a label: structure, reference, seconds.

    Raises:
        LabelCorrupt: the file is damaged, or its content does not belong to its name.
    """
    _, record = read_label(file)
    if "reference" not in record:
        raise LabelCorrupt(f"label {file} is damaged: its reference is missing")
    return record


def export_labels(files: Iterable[Path], target: Path) -> Moved:
    """Write labels into one file of extended XYZ; damaged labels are left out and reported.

    Raises:
        StructureError: there are no labels, or the file's name is not one of extended XYZ.
        CampaignError: the file cannot be written.
    """
    if target.suffix not in SUFFIXES:
        raise StructureError(f"{target} should end in {' or '.join(SUFFIXES)}: readers need this ending")
    moved = Moved()
    frames = [record_frame(record, from_plain(record["structure"])) for record in _sound(files, moved.problems)]
    if not frames:
        raise StructureError("; ".join(["there is no label to export", *moved.problems]))
    with _open(target):
        write_atomically(target, "".join(frames).encode())
    moved.put = len(frames)
    return moved


def import_labels(file: Path, reference: Spec | None = None, names: Names | None = None) -> list[Plain]:
    """The records of the labels in a file. Labels that psiflow did not write become labels of ``reference``.

    Args:
        file: the file.
        reference: the reference of labels from other programs.
        names: the names of these labels in the file, if not ASE's.

    Raises:
        StructureError: the file cannot be read; a frame that psiflow wrote has been changed; another frame has no
            label, is unsuitable, or has no reference.
    """
    return [
        _record(atoms, f"{file.absolute()}, structure {number}", reference, names)
        for number, atoms in enumerate(read(file))
    ]


def put(records: Iterable[Plain], store: Path) -> Moved:
    """Put labels into a store; existing labels are never changed.

    Raises:
        CampaignError: the store cannot be written.
    """
    moved = Moved()
    for record in records:
        spec, structure = Spec.from_plain(record["reference"]), from_plain(record["structure"])
        file = label_file(store, spec, structure)
        if is_barred(file):
            moved.problems.append(f"{file} exists, but this user may not read it; not copied")
            continue
        with _open(store):
            exists = has_label(file)  # a damaged label does not count
            if not exists:
                write_label(file, record)
        if not exists:
            moved.put += 1
            continue
        difference = _difference(read_record(file), record)
        if difference is None:
            moved.there += 1
        else:
            formula = structure.get_chemical_formula()
            moved.problems.append(f"{formula} {digest(structure)[:8]} by {spec.name}: {difference}; not copied: {file}")
    return moved


def merge_labels(files: Iterable[Path], target: Path) -> Moved:
    """Put the labels of other stores into this one; damaged labels are left out and reported."""
    damaged: list[str] = []
    moved = put(_sound(files, damaged), target)
    moved.problems += damaged
    return moved


@contextlib.contextmanager
def _open(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CampaignError(f"cannot use {path}: {error.strerror}; labels written before are kept") from error


def _sound(files: Iterable[Path], damaged: list[str]) -> Iterator[Plain]:
    for file in files:
        try:
            with _open(file):
                record = read_record(file)
        except LabelCorrupt as error:
            damaged.append(str(error))
        else:
            yield record


def _difference(stored: Plain, other: Plain) -> str | None:
    """How two labels of the same structure and reference differ; None if they do not."""
    one, two = label_of(from_plain(stored["structure"])), label_of(from_plain(other["structure"]))
    if same_label(one, two):
        return None
    forces = float(np.abs(one.forces - two.forces).max())
    return f"two labels; energies {one.energy!r} (stored) and {two.energy!r} eV, forces up to {forces:.3g} eV/Å apart"


def _record(atoms: Atoms, where: str, reference: Spec | None, names: Names | None) -> Plain:
    if ENTRY_HASH in atoms.info and names is None:
        entry = restored_entry(atoms, where)
        if entry.is_labelled and entry.provenance.reference is not None:
            return entry_record(entry, where)
    elif HASH in atoms.info:
        return restored_record(atoms, where)
    if reference is None:
        raise StructureError(f"{where}: psiflow did not export it; give the reference that computed it (--reference)")
    return _foreign(atoms, where, reference, names)


def _foreign(atoms: Atoms, where: str, reference: Spec, names: Names | None) -> Plain:
    """A label from another program, as a label of the reference that the user gives.

    Labels are found by charge and spin, among others. So these must be correct, as for a structure to be labelled.
    """
    atoms.info = {name: value for name, value in atoms.info.items() if not name.startswith(OWN)}
    problem = problem_of(atoms)
    if problem:
        raise StructureError(f"{where} ({atoms.get_chemical_formula()}): {problem}")
    alone = labelled(atoms, where, names)
    if not trustworthy(label_of(alone), alone):
        raise StructureError(f"{where}: its energy, forces or stress are not finite, or have a wrong shape")
    return {
        "structure": to_plain(alone),
        "reference": reference.to_plain(),
        "seconds": 0.0,
        "imported_from": where,
    }
