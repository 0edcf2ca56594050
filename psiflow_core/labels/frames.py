"""The structures of a data set, in memory, in a label store or in a file. Each is read on access."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ase import Atoms

from psiflow_core.constraints import constraint_problem, fix
from psiflow_core.errors import StructureError
from psiflow_core.labels.exact import SUFFIXES
from psiflow_core.labels.foreign import Names, as_given
from psiflow_core.labels.provenance import Entry, Provenance
from psiflow_core.labels.reading import add_columns, read, refuse_losses, selected, unreadable
from psiflow_core.labels.roundtrip import (
    ENTRY,
    ENTRY_HASH,
    HASH,
    entry_of_record,
    entry_of_row,
    restored_entry,
    restored_record,
)
from psiflow_core.labels.store import read_label
from psiflow_core.labels.xyz_index import frame_offsets
from psiflow_core.structures import from_plain, to_plain


class Frame(Protocol):
    """One structure of a data set, wherever it is stored."""

    def entry(self) -> Entry:
        """Read the structure. The result is a copy for the caller alone."""


@dataclass(frozen=True)
class Held:
    """A structure in memory."""

    held: Entry

    def entry(self) -> Entry:
        structure = from_plain(to_plain(self.held.structure))
        return Entry(structure, self.held.provenance, self.held.failure)


@dataclass(frozen=True)
class StoredLabel:
    """A label in a store (`psiflow_core.labels.store`); its file names its reference.

    Reading it raises `LabelCorrupt` if the file is missing or damaged.
    """

    file: Path
    provenance: Provenance = Provenance()
    """Facts in addition to the label's record."""
    fixed: tuple[int, ...] | None = None
    """The fixed atoms, instead of those in the record: a label does not depend on them."""

    def entry(self) -> Entry:
        structure, record = read_label(self.file)
        if self.fixed is not None:
            fix(structure, self.fixed)
        return entry_of_record(record, structure, self.provenance)


@dataclass(frozen=True)
class File:
    """A file that must not change after it was opened."""

    path: Path
    stamp: tuple[int, int, int]
    names: Names | None

    @classmethod
    def opened(cls, path: Path, names: Names | None) -> File:
        return cls(path.absolute(), _stamp(path), names)

    def require_unchanged(self) -> None:
        """Raises `StructureError`."""
        if not self.path.exists():
            raise StructureError(f"{self.path} is gone since it was opened; put it back, or load another file")
        if _stamp(self.path) != self.stamp:
            raise StructureError(f"{self.path} has changed since it was opened; load it again")


@dataclass(frozen=True)
class XyzFrame:
    """A structure in a file of extended XYZ, in a range of its bytes."""

    file: File
    number: int
    begin: int
    end: int

    def entry(self) -> Entry:
        self.file.require_unchanged()
        with self.file.path.open("rb") as stream:
            stream.seek(self.begin)
            text = stream.read(self.end - self.begin).decode(errors="replace")
        where = f"{self.file.path} {self.number}"
        return entry_of(parsed(text, self.file.path), where, self.file.names)


@dataclass(frozen=True)
class DatabaseFrame:
    """A structure in an ASE database."""

    file: File
    number: int
    row: int
    """The row's id."""

    def entry(self) -> Entry:
        import ase.db

        self.file.require_unchanged()
        row = ase.db.connect(self.file.path).get(self.row)
        where = f"{self.file.path} {self.number}"
        if self.file.names is None and ENTRY in row.data:
            return entry_of_row(row, where)
        atoms = row.toatoms()
        add_columns(atoms, row)
        return entry_of(atoms, where, self.file.names)


def frames_of(path: str | Path, names: Names | None = None) -> Sequence[Frame]:
    """The structures of a file, or of a selection (``md.xyz@::10``). Extended XYZ and databases are not parsed here.

    Raises:
        StructureError: as `psiflow_core.labels.reading.read`; for other formats also as `entry_of`.
    """
    file, selection = selected(path)
    chosen = selection if isinstance(selection, slice) else slice(selection, selection + 1 or None)
    if not file.is_file() or file.suffix not in (*SUFFIXES, ".db"):
        return [Held(entry_of(atoms, f"{path} {number}", names)) for number, atoms in enumerate(read(path))]
    frames = (_in_database if file.suffix == ".db" else _in_xyz)(File.opened(file, names))[chosen]
    if not frames:
        raise StructureError(f"{path} holds no structure")
    return frames


def _in_xyz(file: File) -> list[XyzFrame]:
    offsets = frame_offsets(file.path).tolist()
    return [XyzFrame(file, *place) for place in zip(range(len(offsets)), offsets, offsets[1:], strict=False)]


def _in_database(file: File) -> list[DatabaseFrame]:
    import ase.db

    try:
        rows = [row.id for row in ase.db.connect(file.path).select(columns=["id"], include_data=False)]
    except Exception as error:  # the database's reader may raise anything
        raise StructureError(unreadable(file.path, error)) from None
    return [DatabaseFrame(file, number, row) for number, row in enumerate(rows)]


def parsed(text: str, file: Path) -> Atoms:
    """The structure of one frame of extended XYZ; raises `StructureError`."""
    import ase.io

    try:
        atoms = ase.io.read(io.StringIO(text), format="extxyz")
    except Exception as error:  # ASE's readers may raise anything
        raise StructureError(unreadable(file, error)) from None
    assert isinstance(atoms, Atoms)
    return atoms


def entry_of(atoms: Atoms, where: str, names: Names | None = None) -> Entry:
    """The entry for a structure of a file: exactly as psiflow wrote it, or from another program, with any label.

    Raises:
        StructureError: psiflow wrote it, and it was changed; or another program wrote it, and data would be lost or
            it is unclear which numbers are the label.
    """
    if names is None and ENTRY_HASH in atoms.info:
        return restored_entry(atoms, where)
    if names is None and HASH in atoms.info:
        record = restored_record(atoms, where)
        return entry_of_record(record, from_plain(record["structure"]), Provenance(source=where))
    refuse_losses(atoms, where)
    return Entry(settled(atoms, where, names), Provenance(source=where))


def settled(atoms: Atoms, where: str, names: Names | None = None) -> Atoms:
    """A structure of a script or of another program, as a data set keeps it: with its label, if it has one.

    Raises:
        StructureError: it has constraints that cannot be kept, or it is unclear which numbers are the label.
    """
    problem = constraint_problem(atoms)
    if problem:
        raise StructureError(f"{where} ({atoms.get_chemical_formula()}): {problem}")
    return from_plain(to_plain(as_given(atoms, where, names)))


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
