"""Labels on the move: to extended XYZ and back without loss of a bit, and from store to store.

A file that psiflow writes has columns and numbers with all their digits, so that any program reads the label
itself; what extended XYZ cannot hold exactly (text, the reference's options) stands in JSON at the end of the
comment line, in ASE's way (`key="_JSON …"`), and so does the hash of the whole record.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from psiflow_core.checks import problem_of
from psiflow_core.components import Spec
from psiflow_core.errors import CampaignError, LabelCorrupt, StructureError
from psiflow_core.files import write_atomically
from psiflow_core.foreign_labels import OWN, Names, labelled, same_label
from psiflow_core.reading import read
from psiflow_core.structures import (
    ELECTRONIC,
    KEPT_ARRAYS,
    Plain,
    canonical,
    digest,
    from_plain,
    label_of,
    sha256,
    to_plain,
)
from psiflow_core.tasks import has_label, is_barred, label_file, read_label, trustworthy, write_label

HASH = "psiflow_label_hash"
"""Under this name stands the SHA-256 of the whole record: psiflow wrote this frame, and nobody has changed it."""

SUFFIXES = (".xyz", ".extxyz")

DERIVED = ("structure_hash", "label_hash", "reference_digest", "plugin", "info")
"""What `OWN` names that is no part of a record: it follows from the record, or lies in its structure."""

TAKEN = {"lattice", "properties", "pbc", "origin", "cell_origin", *all_properties}
"""Names in a comment line that mean something to readers."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What every reader takes for a name."""


@dataclass
class Moved:
    """What became of labels that were to be put somewhere."""

    put: int = 0
    there: int = 0
    """The very same labels were there already."""
    problems: list[str] = field(default_factory=list)
    """Labels that were left alone, each with the reason."""


def label_files(folder: Path) -> list[Path]:
    """The labels of a store, by key.

    Raises:
        StructureError: the folder is no label store.
    """
    if not folder.is_dir():
        raise StructureError(f"there is no folder {folder}")
    require_store(folder)
    return sorted(folder.glob("[0-9a-f][0-9a-f]/*.json"))


def require_store(folder: Path) -> None:
    """Refuse a folder that holds something else than labels; one that is not there yet is fine.

    Raises:
        StructureError: it is a campaign's, or has other files in it.
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
    """A label as it lies in a store: structure, reference, seconds.

    Raises:
        LabelCorrupt: the file is damaged, or is not what its name says.
    """
    _, record = read_label(file)
    if "reference" not in record:
        raise LabelCorrupt(f"label {file} is damaged: it does not say which reference computed it")
    return record


def export_labels(files: Iterable[Path], target: Path) -> Moved:
    """Write labels into one file of extended XYZ; damaged ones are told and left out.

    Raises:
        StructureError: there is none, or the file's name is not one of extended XYZ.
        CampaignError: the file cannot be written.
    """
    if target.suffix not in SUFFIXES:
        raise StructureError(f"{target} should end in {' or '.join(SUFFIXES)}: readers know the format by it")
    moved = Moved()
    frames = [frame(record) for record in _sound(files, moved.problems)]
    if not frames:
        raise StructureError("; ".join(["there is no label to export", *moved.problems]))
    with _open(target):
        write_atomically(target, "".join(frames).encode())
    moved.put = len(frames)
    return moved


def frame(record: Plain) -> str:
    """A label as a frame of extended XYZ, exact to the last bit."""
    atoms = from_plain(record["structure"])
    columns = list(_columns(atoms))
    properties = ":".join(f"{name}:{kind}:{len(rows[0])}" for name, kind, rows in columns)
    comment = [*_cell(atoms), f"Properties={properties}", *_numbers(atoms), *_provenance(record, atoms)]
    rows = (" ".join(word for _, _, column in columns for word in column[number]) for number in range(len(atoms)))
    return "\n".join([str(len(atoms)), " ".join(comment), *rows, ""])


def import_labels(file: Path, reference: Spec | None = None, names: Names | None = None) -> list[Plain]:
    """The records of a file: what psiflow exported as it was, the rest as labels of ``reference``.

    Args:
        names: where the labels of others are in the file, if not under ASE's names.

    Raises:
        StructureError: the file cannot be read; a frame that psiflow wrote has been changed; one of others has
            no label, or is unsound, or has come without a reference.
    """
    return [
        _record(atoms, f"{file.absolute()}, structure {number}", reference, names)
        for number, atoms in enumerate(read(file))
    ]


def put(records: Iterable[Plain], store: Path) -> Moved:
    """Put labels into a store; one that is there already is never changed.

    Raises:
        CampaignError: the store cannot be written.
    """
    moved = Moved()
    for record in records:
        spec, structure = Spec.from_plain(record["reference"]), from_plain(record["structure"])
        file = label_file(store, spec, structure)
        if is_barred(file):
            moved.problems.append(f"{file} is there, and this user may not read it; left alone")
            continue
        with _open(store):
            there = has_label(file)  # one that is damaged is none
            if not there:
                write_label(file, record)
        if not there:
            moved.put += 1
            continue
        difference = _difference(read_record(file), record)
        if difference is None:
            moved.there += 1
        else:
            formula = structure.get_chemical_formula()
            moved.problems.append(f"{formula} {digest(structure)[:8]} by {spec.name}: {difference}; left alone: {file}")
    return moved


def merge_labels(files: Iterable[Path], target: Path) -> Moved:
    """Put the labels of other stores into this one; damaged ones are told and left out."""
    damaged: list[str] = []
    moved = put(_sound(files, damaged), target)
    moved.problems += damaged
    return moved


@contextlib.contextmanager
def _open(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CampaignError(f"cannot use {path}: {error.strerror}; what was written before stays") from error


def _sound(files: Iterable[Path], damaged: list[str]) -> Iterator[Plain]:
    for file in files:
        try:
            with _open(file):
                record = read_record(file)
        except LabelCorrupt as error:
            damaged.append(str(error))
        else:
            yield record


def _difference(there: Plain, other: Plain) -> str | None:
    """How two labels of the same structure and reference differ."""
    one, two = label_of(from_plain(there["structure"])), label_of(from_plain(other["structure"]))
    if same_label(one, two):
        return None
    forces = float(np.abs(one.forces - two.forces).max())
    return f"two labels; energies {one.energy!r} (there) and {two.energy!r} eV, forces up to {forces:.3g} eV/Å apart"


def _columns(atoms: Atoms) -> Iterator[tuple[str, str, list[list[str]]]]:
    """Name, type and words of each column: the shortest that give the very number back."""
    yield "species", "S", [[chemical_symbols[number]] for number in atoms.numbers]
    yield "pos", "R", _words(atoms.positions)
    yield "forces", "R", _words(label_of(atoms).forces)
    for name in (*KEPT_ARRAYS, *ELECTRONIC):
        if atoms.has(name):
            yield name, "R", _words(atoms.get_array(name))


def _words(values: Any) -> list[list[str]]:
    rows = np.asarray(values, float).reshape(len(values), -1)
    return [[repr(float(value)) for value in row] for row in rows]


def _cell(atoms: Atoms) -> Iterator[str]:
    """The cell comes first: some readers look for it by its bare name."""
    if np.asarray(atoms.cell).any():
        yield f'Lattice="{" ".join(repr(float(value)) for value in np.asarray(atoms.cell).flat)}"'
    yield f'pbc="{" ".join("T" if periodic else "F" for periodic in atoms.pbc)}"'


def _numbers(atoms: Atoms) -> Iterator[str]:
    """The label, and charge, spin and whatever else is known of the structure that readers can tell apart."""
    found = label_of(atoms)
    yield f"energy={found.energy!r}"
    if found.stress is not None:
        full = voigt_6_to_full_3x3_stress(found.stress)
        yield f'stress="{" ".join(repr(float(value)) for value in full.flat)}"'
    for name, value in atoms.info.items():
        if NAME.fullmatch(name) and name.lower() not in TAKEN and not name.startswith(OWN):
            yield f"{name}={_word(value)}"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return _quoted(" ".join(value.split())) if isinstance(value, str) else repr(value)


def _provenance(record: Plain, atoms: Atoms) -> Iterator[str]:
    reference = Spec.from_plain(record["reference"])
    yield f"{OWN}structure_hash={digest(atoms)}"
    yield f"{HASH}={sha256(record)}"
    yield f"{OWN}reference_digest={reference.digest}"
    yield f"{OWN}plugin={_quoted(f'{reference.distribution} {reference.version}')}"
    yield f"{OWN}seconds={record['seconds']!r}"
    rest = {name: value for name, value in record.items() if name != "structure"}
    for name, value in {**rest, "info": record["structure"]["info"]}.items():
        if name != "seconds":
            yield f"{OWN}{name}={_json(value)}"


def _json(value: Any) -> str:
    """JSON as ASE reads it; without spaces and signs of equality, in which other readers would look for names."""
    text = canonical(value).decode().replace(" ", "\\u0020").replace("=", "\\u003d")
    return _quoted(f"_JSON {text}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _record(atoms: Atoms, where: str, reference: Spec | None, names: Names | None) -> Plain:
    if HASH in atoms.info:
        return _restored(atoms, where)
    if reference is None:
        raise StructureError(f"{where}: psiflow did not export it; say which reference computed it (--reference)")
    return _foreign(atoms, where, reference, names)


def _restored(atoms: Atoms, where: str) -> Plain:
    """The record that was exported, if it still is what it was."""
    told = {name.removeprefix(OWN): value for name, value in atoms.info.items() if name.startswith(OWN)}
    try:
        seen = digest(atoms)
        atoms.info = told["info"]
        rest = {name: value for name, value in told.items() if name not in DERIVED}
        record = {"structure": to_plain(atoms), **rest, "seconds": np.asarray(told["seconds"]).item()}
        unchanged = (sha256(record), seen) == (told["label_hash"], told["structure_hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise StructureError(_changed(where, f"{type(error).__name__}: {error}")) from error
    if not unchanged:
        raise StructureError(_changed(where, "its hash differs"))
    return record


def _changed(where: str, why: str) -> str:
    return f"{where}: it is not what psiflow exported ({why}), so nothing was imported; leave this structure out"


def _foreign(atoms: Atoms, where: str, reference: Spec, names: Names | None) -> Plain:
    """A label of others, as one of this reference: whoever imports it says that it is.

    It is found by charge and spin, so that these have to be right, as those of a structure that is to be labelled.
    """
    atoms.info = {name: value for name, value in atoms.info.items() if not name.startswith(OWN)}
    problem = problem_of(atoms)
    if problem:
        raise StructureError(f"{where} ({atoms.get_chemical_formula()}): {problem}")
    alone = labelled(atoms, where, names)
    if not trustworthy(label_of(alone), alone):
        raise StructureError(f"{where}: its energy, forces or stress are not finite, or not of its shape")
    return {
        "structure": to_plain(alone),
        "reference": reference.to_plain(),
        "seconds": 0.0,
        "imported_from": where,
    }
