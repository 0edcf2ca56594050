"""Labels and entries of data sets as frames of extended XYZ or rows of a database, and back, exact to the last bit.

Each frame also has psiflow's own names (`OWN`) and a hash of everything, by which any change is noticed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from psiflow_core.components import Spec
from psiflow_core.errors import StructureError
from psiflow_core.labels.exact import NAME, OWN, as_json, frame, word
from psiflow_core.labels.provenance import Entry, Provenance
from psiflow_core.structures import Plain, digest, sha256, to_plain

HASH = f"{OWN}label_hash"
"""The name of the SHA-256 of a label's whole record: psiflow wrote this frame, and it was not changed."""

ENTRY = f"{OWN}entry"
"""The name of the data of an entry other than the structure and its label."""

ENTRY_HASH = f"{OWN}entry_hash"
"""The name of the SHA-256 of an entry of a data set."""

DERIVED = ("structure_hash", "label_hash", "reference_digest", "plugin", "info")
"""Names of `OWN` that are not part of a record: they follow from the record, or belong to its structure."""

RESERVED = ("origin", "entry", "entry_hash", "label_hash")
"""Names, without `OWN`, that cannot be a further fact of an entry, because a frame uses them itself."""


# Labels of a store -----------------------------------------------------------------------------------------


def record_frame(record: Plain, atoms: Atoms) -> str:
    """A label of a store as a frame."""
    return frame(atoms, _remarks_on_record(record, atoms))


def _remarks_on_record(record: Plain, atoms: Atoms) -> Iterator[tuple[str, str]]:
    reference = Spec.from_plain(record["reference"])
    yield "structure_hash", digest(atoms)
    yield "label_hash", sha256(record)
    yield "reference_digest", reference.digest
    yield "plugin", word(f"{reference.distribution} {reference.version}")
    yield "seconds", word(record["seconds"])
    rest = {name: value for name, value in record.items() if name != "structure"}
    for name, value in {**rest, "info": record["structure"]["info"]}.items():
        if name != "seconds":
            yield name, as_json(value)


def restored_record(atoms: Atoms, where: str) -> Plain:
    """The record that `record_frame` wrote; raises `StructureError` if it was changed."""
    own = {name.removeprefix(OWN): value for name, value in atoms.info.items() if name.startswith(OWN)}
    with _reading(where):
        seen = digest(atoms)
        atoms.info = own["info"]
        rest = {name: value for name, value in own.items() if name not in DERIVED}
        record = {"structure": to_plain(atoms), **rest, "seconds": np.asarray(own["seconds"]).item()}
        unchanged = (sha256(record), seen) == (own["label_hash"], own["structure_hash"])
    if not unchanged:
        raise _changed(where, "its hash differs")
    return record


# Entries of data sets --------------------------------------------------------------------------------------


def entry_frame(entry: Entry) -> str:
    """An entry of a data set as a frame; other programs can read its origin and further facts, too."""
    return frame(entry.structure, _remarks_on_entry(entry))


def _remarks_on_entry(entry: Entry) -> Iterator[tuple[str, str]]:
    plain, known = entry.to_plain(), entry.provenance
    for name, value in known.extra.items():
        if NAME.fullmatch(name) and name not in RESERVED:
            yield name, word(value)
    yield "origin", word(known.origin)
    yield "entry_hash", sha256(plain)
    yield "entry", as_json({"info": plain["structure"]["info"], **entry.about()})


def entry_row(entry: Entry) -> Plain:
    """The data of a database's row: ASE itself stores neither `info` nor vectors of magnetic moments."""
    return {ENTRY: entry.to_plain(), ENTRY_HASH: entry.digest}


def write_xyz(file: Path, entries: Iterable[Entry]) -> None:
    """Write entries as extended XYZ, one after the other."""
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(entry_frame(entry) for entry in entries)


def write_database(file: Path, entries: Iterable[Entry]) -> None:
    """Write entries as an ASE database."""
    import ase.db

    with ase.db.connect(file, type="db", append=False, use_lock_file=False) as database:
        for entry in entries:
            database.write(entry.structure, data=entry_row(entry))


def restored_entry(atoms: Atoms, where: str) -> Entry:
    """The entry that `entry_frame` wrote; raises `StructureError` if it was changed."""
    known, written = atoms.info[ENTRY], atoms.info[ENTRY_HASH]
    with _reading(where):
        atoms.info = known["info"]
        entry = Entry.from_plain({"structure": to_plain(atoms), **known})
    if entry.digest != written:
        raise _changed(where, "its hash differs")
    return entry


def entry_of_row(row: Any, where: str) -> Entry:
    """The entry that `entry_row` wrote; raises `StructureError` if it was changed."""
    with _reading(where):
        entry = Entry.from_plain(row.data[ENTRY])
        same = np.array_equal(row.positions, entry.structure.positions)
    if not same or entry.digest != row.data[ENTRY_HASH]:
        raise _changed(where, "its hash differs")
    return entry


def entry_of_record(record: Plain, atoms: Atoms, known: Provenance) -> Entry:
    """A label of a store as an entry of a data set; the record completes the provenance ``known``."""
    reference = Spec.from_plain(record["reference"]) if "reference" in record else known.reference
    extra = {"seconds": float(record["seconds"]), **known.extra}
    return Entry(atoms, Provenance(reference, known.origin, known.source or record.get("imported_from", ""), extra))


def entry_record(entry: Entry, where: str) -> Plain:
    """An entry of a data set, with a label and its reference, as a record of a store."""
    reference = entry.provenance.reference
    assert reference is not None
    return {
        "structure": to_plain(entry.structure),
        "reference": reference.to_plain(),
        "seconds": float(entry.provenance.extra.get("seconds", 0.0)),
        "imported_from": where,
    }


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise _changed(where, f"{type(error).__name__}: {error}") from error


def _changed(where: str, why: str) -> StructureError:
    return StructureError(f"{where}: it was changed after psiflow exported it ({why}); leave this structure out")
