"""The SQLite file of a journal: opened for one writer or many readers, its intact beginning, its seals."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from psiflow_core.errors import CampaignError

NETWORK = (
    *("nfs", "lustre", "gpfs", "beegfs", "fhgfs", "cifs", "smb", "ceph"),
    *("gluster", "panfs", "pvfs2", "orangefs", "weka", "afs", "9p", "sshfs"),
)
"""Prefixes of the types of file systems that several hosts can share."""


LOGS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps next to a journal."""


FORMAT = 1
"""The version of the table and of the kinds of events. A journal of a later version is refused."""


BUSY = 60.0
"""How long a journal's writer and its readers wait for each other. [s]"""


INSERT = "INSERT INTO events (number, time, kind, data, seal) VALUES (?, ?, ?, ?, ?)"


LAST_SEAL = "SELECT seal FROM events ORDER BY number DESC LIMIT 1"


INSERT_NEXT = f"INSERT INTO events (time, kind, data, seal) SELECT ?, ?, ?, ? WHERE coalesce(({LAST_SEAL}), '') = ?"
"""One statement is one transaction: no other writer comes between reading the last event and writing the next."""


Row = tuple[int | None, float, str, str, str]
"""Number, time, kind, data and seal of an event."""


def refuse_newer(connection: sqlite3.Connection, path: Path) -> int:
    """The format version of a journal, 0 for a new one.

    Raises:
        CampaignError: a later psiflow wrote the journal.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        connection.close()
        raise CampaignError(
            f"the journal {path} has format {version}, and this psiflow reads formats up to {FORMAT}: a newer psiflow "
            "wrote it; continue with that version, or choose another folder"
        )
    return int(version)


def open_writer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY)
    try:
        version = refuse_newer(connection, path)
        mode = journal_mode(path, psutil.disk_partitions(all=True))
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'WAL' else 'FULL'}")  # `settle` waits for a WAL
        connection.execute(
            "CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, time REAL NOT NULL, "
            "kind TEXT NOT NULL, data TEXT NOT NULL, seal TEXT NOT NULL)"
        )
        if version != FORMAT:
            connection.execute(f"PRAGMA user_version={FORMAT}")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname not in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            connection.close()
            raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    # A finished journal in WAL mode has no log; a reader without permission to write can read it too.
    alone = not any(path.with_name(path.name + log).exists() for log in ("-wal", "-journal"))
    address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    return sqlite3.connect(address, uri=True, timeout=BUSY)


def intact_rows(connection: sqlite3.Connection) -> tuple[list[Row], bool]:
    """The intact events from the first on, and whether these are all."""
    rows: list[Row] = []
    try:
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'events'").fetchone():
            return [], False
        for number in count(1):
            row = connection.execute("SELECT * FROM events WHERE number = ?", (number,)).fetchone()
            if row is None:
                last = connection.execute("SELECT max(number) FROM events").fetchone()[0] or 0
                return rows, last < number
            seal = rows[-1][-1] if rows else ""
            if row[-1] != seal_of(seal, *row[1:4]):
                return rows, False
            rows.append(row)
    except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError):  # a damaged file can fail in any of these ways
        return rows, False
    return rows, True


def put_journal_aside(path: Path) -> Path:
    """Rename a damaged journal together with its logs."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    for ending in ("", *LOGS):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(target.with_name(target.name + ending))
    return target


def seal_of(before: str, when: float, kind: str, data: str) -> str:
    return hashlib.sha256(f"{before}|{when!r}|{kind}|{data}".encode()).hexdigest()


def journal_mode(path: Path, partitions: Iterable[Any]) -> str:
    """SQLite's journal mode for a file: `WAL`, or `TRUNCATE` where other hosts may read it.

    In WAL mode readers and writer share memory, so they have to be on one host (https://sqlite.org/wal.html).

    Args:
        partitions: as `psutil.disk_partitions(all=True)` lists them, in the order in which they were mounted.
    """
    file = path.resolve()
    around = [mounted for mounted in partitions if file.is_relative_to(mounted.mountpoint)]
    around.sort(key=lambda mounted: len(Path(mounted.mountpoint).parts))
    kind = around[-1].fstype.lower().removeprefix("fuse.") if around else ""
    return "TRUNCATE" if kind.startswith(NETWORK) else "WAL"
