"""The journal: what a campaign has believed, in order, in one SQLite file.

Every event is sealed with a hash over itself and the seal before it. What a disk has damaged is therefore noticed,
and what is intact before it can be believed. SQLite keeps the latest events in a log beside the file, and takes a log
that is damaged or gone for one that ends earlier: the number and the seal of the last event stand in the *tip*, a
third file, which tells that events are lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from psiflow_core.errors import CampaignError, FileCorrupt
from psiflow_core.files import make_durable, put_aside, read_sealed, sealed, write_atomically
from psiflow_core.structures import Plain

NETWORK = (
    *("nfs", "lustre", "gpfs", "beegfs", "fhgfs", "cifs", "smb", "ceph"),
    *("gluster", "panfs", "pvfs2", "orangefs", "weka", "afs", "9p", "sshfs"),
)
"""How the types of file systems begin that several hosts can share."""

LOGS = ("-wal", "-shm", "-journal")
"""How the names of the files end that SQLite keeps beside a journal."""

FORMAT = 1
"""The version of the table and of the kinds of events. A journal of a later one is left alone."""

WAITING = 0.01
"""The share of the time in which a journal may wait for its disk."""

BUSY = 60.0
"""How long a journal's writer and its readers wait for each other. [s]"""


@dataclass(frozen=True)
class Event:
    """One line of the journal."""

    number: int
    time: float
    """When it was written. [s since the epoch]"""
    kind: str
    data: Plain


class Journal:
    """Events in the order in which they were believed: one writer, any number of readers.

    Once `append` has returned, outside of `together`, the event survives the death of any process. It survives a
    loss of power once the disk has been waited for: at once, where events are rare, and where they are many, so
    often that the waiting takes no more than `WAITING` of the time. A journal that has lost its last moment that
    way is whole, and the tasks of that moment are found again or run again. The mode is `journal_mode`'s; either
    one's journal is read and continued in the other.

    Nobody else may write while this one does: before each event it is made sure that the last one in the file is
    the last one that was written here, and that the folder is still its driver's. Time goes by the machine's own
    clock: one that is set back or forth changes no span between the events of a session.

    Args:
        write: open it to append. A damaged journal is put aside, and its intact beginning taken over.
        owned: raises where the folder is another driver's by now.

    Raises:
        CampaignError: the file cannot be opened, a newer psiflow wrote it, or, for reading, it is not a journal or
            is damaged.
    """

    def __init__(self, path: Path, write: bool = False, owned: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._number, self._seal = 0, ""
        self._tip = _Tip(path)
        self._owned = owned
        self._file: int | None = None
        self._offset = time.time() - time.monotonic()
        self._unsettled: set[Path] = set()
        self._settled_until = 0.0
        self.damaged: Path | None = None
        """Where a damaged journal was put."""
        self.lost = 0
        """Events that are known to be lost from its end."""
        self.doubt = ""
        """Why it cannot be said whether any are."""
        try:
            if not write:
                self._connection = _reader(path)
                return
            for log in (path.with_name(path.name + ending) for ending in LOGS):
                if os.path.lexists(log) and not log.is_file():  # SQLite opens nothing then
                    put_aside(log)
            self._connection = _writer(path)
            intact, whole = _intact(self._connection)
            self.lost = max(0, self._told_by_tip(bool(intact)) - len(intact))
            if self.lost or not whole:
                self._connection.close()
                self.damaged = _put_aside(path)
                self._connection = _writer(path)
                with self.together():
                    self._connection.executemany(INSERT, intact)
            self._number, self._seal = len(intact), intact[-1][-1] if intact else ""
            self._tip.begin(self._number, self._seal)
            self._file = path.stat().st_ino
            if intact:  # the clock may have been set back since the last session
                self._offset = max(self._offset, intact[-1][1] - time.monotonic())
        except sqlite3.Error as error:
            beside = f"{path.name}, or {path.name}-wal beside it, may be barred to this user"
            raise CampaignError(f"cannot open the journal {path}: {error}; {beside}") from error
        except OSError as error:
            raise CampaignError(f"cannot write beside the journal {path}: {error.strerror}") from error

    def _told_by_tip(self, begun: bool) -> int:
        """How many events there were, as far as the tip tells."""
        try:
            return self._tip.number()
        except FileCorrupt as error:
            self.doubt = str(error) if begun else ""
            return 0

    def append(self, kind: str, data: Plain) -> Event:
        """Write one event.

        Raises:
            CampaignError: it cannot be written, because the disk is full, for instance, or because the campaign is
                another driver's by now.
        """
        self._require_file()
        now, text = time.monotonic() + self._offset, json.dumps(data)
        seal = _sealed(self._seal, now, kind, text)
        with self._writing():
            cursor = self._connection.execute(INSERT_NEXT, (now, kind, text, seal, self._seal))
        if not cursor.rowcount:
            raise self._lost("another driver has written into its journal")
        self._number, self._seal = int(cursor.lastrowid or 0), seal
        self._unsettled.add(self._path)
        if not self._connection.in_transaction:
            self._point()
            self.settle()
        return Event(self._number, now, kind, data)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write all events of the block at its end: one wait for the disk instead of many."""
        with self._writing():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            with self._writing():
                self._connection.execute("COMMIT")
        self._point()
        self.settle()

    def _point(self) -> None:
        """Have the tip tell of the last event, once this is in the journal."""
        with self._writing():
            self._tip.point(self._number, self._seal)

    @property
    def clock(self) -> Plain:
        """By which other processes of this machine know what time it is in the journal, as `since` needs it."""
        return {"boot": _boot(), "offset": self._offset}

    def confirm(self) -> None:
        """Make sure that nobody else has written since the last event; raises `CampaignError` as `append`."""
        self._require_file()
        with self._writing():
            last = self._connection.execute(LAST_SEAL).fetchone()
        if (last[0] if last else "") != self._seal:
            raise self._lost("another driver has written into its journal")

    def relies_on(self, file: Path) -> None:
        """Have a file that events speak of survive a loss of power whenever they do."""
        self._unsettled.add(file)

    def settle(self, now: bool = False) -> None:
        """Wait for the disk, if it is time to: what has been written then survives a loss of power."""
        start = time.monotonic()
        if not self._unsettled or (start < self._settled_until and not now):
            return
        with self._writing():
            for file in self._unsettled - {self._path}:
                make_durable(file)
            log = self._path.with_name(self._path.name + "-wal")
            make_durable(log if log.exists() else self._path)  # without a WAL, SQLite has waited by itself
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # few events are in the log alone
        self._unsettled.clear()
        end = time.monotonic()
        self._settled_until = end + (end - start) / WAITING

    def events(self, after: int = 0) -> Iterator[Event]:
        """All events with a number above ``after``, in order.

        Raises:
            CampaignError: the journal is damaged, or a newer psiflow wrote it.
        """
        try:
            refuse_newer(self._connection, self._path)
            rows = self._connection.execute(
                "SELECT * FROM events WHERE number >= ? ORDER BY number", (after,)
            ).fetchall()  # all at once: without a WAL, the writer waits for a reader who has not come to the end
            before = rows.pop(0)[-1] if after else ""
            for number, when, kind, data, seal in rows:
                if seal != _sealed(before, when, kind, data):
                    raise sqlite3.DatabaseError(f"event {number} is not what was written")
                before = seal
                yield Event(number, when, kind, json.loads(data))
        except (sqlite3.Error, ValueError, TypeError, LookupError) as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
                raise CampaignError(
                    f"the driver of the journal {self._path} was killed while it wrote an event; "
                    "run the campaign again: that mends it"
                ) from error
            raise CampaignError(
                f"the journal {self._path} cannot be read ({error}); run the campaign again: it takes over what is "
                "intact, and finds what workers have finished"
            ) from error

    def close(self) -> None:
        try:
            if self._unsettled:
                self.settle(now=True)
        finally:
            self._connection.close()
            self._tip.close()

    def _require_file(self) -> None:
        """Make sure that the folder is still this driver's, and the file still that which was opened."""
        try:
            self._owned()
            there = self._path.stat().st_ino
        except CampaignError:
            self._unsettled.clear()
            raise
        except OSError:
            raise self._lost("its journal is gone") from None
        if self._file not in (None, there):
            raise self._lost("its journal is another file by now")

    def _lost(self, why: str) -> CampaignError:
        self._unsettled.clear()  # what was written is not this driver's to see to any longer
        return lost(self._path.parent, why)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise CampaignError(
                f"cannot write into the journal {self._path}: {error}; see to the disk and run the campaign again: "
                "nothing that was finished is lost"
            ) from error


INSERT = "INSERT INTO events (number, time, kind, data, seal) VALUES (?, ?, ?, ?, ?)"

LAST_SEAL = "SELECT seal FROM events ORDER BY number DESC LIMIT 1"

INSERT_NEXT = f"INSERT INTO events (time, kind, data, seal) SELECT ?, ?, ?, ? WHERE coalesce(({LAST_SEAL}), '') = ?"
"""One statement, and so one transaction: no other writer comes between the look at the last event and the next one."""

Row = tuple[int | None, float, str, str, str]
"""Number, time, kind, data and seal of an event."""


class _Tip:
    """The file that tells which event was the last: too little to be torn, and written in place."""

    SIZE = 256
    """Bytes, a rest of spaces among them: where a disk is full, this place is not lost."""

    def __init__(self, journal: Path) -> None:
        self._file = journal.with_suffix(".tip")
        self._descriptor: int | None = None

    def number(self) -> int:
        """Of the last event; 0 where there has never been one.

        Raises:
            FileCorrupt: it is missing, or is not what was written.
        """
        return int(read_sealed(self._file)["number"])

    def begin(self, number: int, seal: str) -> None:
        """Write the file anew, and keep it open."""
        write_atomically(self._file, self._content(number, seal), durable=False)
        self._descriptor = os.open(self._file, os.O_WRONLY)

    def point(self, number: int, seal: str) -> None:
        """Tell of another event."""
        if self._descriptor is not None:
            os.pwrite(self._descriptor, self._content(number, seal), 0)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _content(self, number: int, seal: str) -> bytes:
        return sealed({"number": number, "event": seal}).ljust(self.SIZE)


def refuse_newer(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a journal, 0 where it has none yet; that of a later psiflow is left alone.

    Raises:
        CampaignError: it is one.
    """
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FORMAT:
        connection.close()
        raise CampaignError(
            f"the journal {path} has format {found}, and this psiflow knows no more than {FORMAT}: a newer psiflow "
            "wrote it; go on with that one, or choose another folder"
        )
    return int(found)


def since(when: float, clock: Plain | None) -> float:
    """Seconds since a journal's event, whatever has become of the machine's clock.

    Args:
        clock: the writer's; without, or on another machine, the time of day counts.
    """
    here = clock is not None and clock["boot"] == _boot() != ""
    now = time.monotonic() + clock["offset"] if clock is not None and here else time.time()
    return max(0.0, now - when)


def _boot() -> str:
    """Since when the machine's clock that nobody sets has run, by a name; empty where that is not told."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else ""


def lost(folder: Path, why: str) -> CampaignError:
    """What a driver is told of which the campaign has become another's."""
    return CampaignError(
        f"this driver has lost the campaign in {folder}: {why}. It has stopped, and has written nothing over the "
        "other's; psiflow status tells who runs it"
    )


def _writer(path: Path) -> sqlite3.Connection:
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


def _reader(path: Path) -> sqlite3.Connection:
    # Beside a finished journal in WAL mode lies nothing; a reader who may not write can read that too.
    alone = not any(path.with_name(path.name + log).exists() for log in ("-wal", "-journal"))
    address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    return sqlite3.connect(address, uri=True, timeout=BUSY)


def _intact(connection: sqlite3.Connection) -> tuple[list[Row], bool]:
    """The events from the first on that are what was written, and whether these are all."""
    rows: list[Row] = []
    try:
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'events'").fetchone():
            return [], False
        for number in count(1):
            found = connection.execute("SELECT * FROM events WHERE number = ?", (number,)).fetchone()
            if found is None:
                last = connection.execute("SELECT max(number) FROM events").fetchone()[0] or 0
                return rows, last < number
            seal = rows[-1][-1] if rows else ""
            if found[-1] != _sealed(seal, *found[1:4]):
                return rows, False
            rows.append(found)
    except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError):  # whatever is read of a damaged file
        return rows, False
    return rows, True


def _put_aside(path: Path) -> Path:
    """Give a damaged journal another name, its logs with it."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    for ending in ("", *LOGS):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(target.with_name(target.name + ending))
    return target


def _sealed(before: str, when: float, kind: str, data: str) -> str:
    return hashlib.sha256(f"{before}|{when!r}|{kind}|{data}".encode()).hexdigest()


def journal_mode(path: Path, partitions: Iterable[Any]) -> str:
    """SQLite's journal mode for a file: `WAL`, or `TRUNCATE` where other hosts may look at it.

    In WAL mode readers and writer share memory, so they have to be on one host (https://sqlite.org/wal.html).

    Args:
        partitions: as `psutil.disk_partitions(all=True)` tells them, in the order in which they were mounted.
    """
    file = path.resolve()
    around = [mounted for mounted in partitions if file.is_relative_to(mounted.mountpoint)]
    around.sort(key=lambda mounted: len(Path(mounted.mountpoint).parts))
    kind = around[-1].fstype.lower().removeprefix("fuse.") if around else ""
    return "TRUNCATE" if kind.startswith(NETWORK) else "WAL"
