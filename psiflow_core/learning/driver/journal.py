"""The journal: the events of a campaign, in order, in one SQLite file.

Every event is sealed with a hash over the event and the seal before it. A damaged event is therefore detected, and the
events before it can be trusted. SQLite keeps the latest events in a log next to the file, and treats a damaged or
missing log as a shorter one. The number and the seal of the last event are therefore kept in the *tip*, a third file,
which shows whether events are lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from psiflow_core.errors import CampaignError, FileCorrupt
from psiflow_core.files import make_durable, put_aside
from psiflow_core.learning.driver.journal_file import (
    INSERT,
    INSERT_NEXT,
    LAST_SEAL,
    LOGS,
    intact_rows,
    open_reader,
    open_writer,
    put_journal_aside,
    refuse_newer,
    seal_of,
)
from psiflow_core.learning.driver.tip import Tip
from psiflow_core.learning.machine.sessions import Clock
from psiflow_core.structures import Plain

WAITING = 0.01
"""The largest fraction of the time that a journal spends waiting for its disk."""


@dataclass(frozen=True)
class Line:
    """One line of the journal: an event as text."""

    number: int
    time: float
    """When it was written. [s since the epoch]"""
    kind: str
    text: str
    """Its fields, as JSON."""

    @property
    def data(self) -> Plain:
        """Its fields."""
        fields: Plain = json.loads(self.text)
        return fields


class Journal:
    """The events in order: one writer, any number of readers.

    Once `append` has returned, outside of `together`, the event survives the death of any process. It survives a
    loss of power once it has been flushed to the disk. Rare events are flushed at once, frequent ones so often that
    the waiting takes at most the fraction `WAITING` of the time. A journal that has lost its last events in this way
    is still valid; their tasks are found again or run again. `journal_mode` gives the mode; a journal of either mode
    can be read and continued in the other.

    There is one writer at a time. Before each event, the journal checks that the last event in the file is the last
    one it wrote, and that the driver still owns the folder. Times follow the machine's monotonic clock: setting the
    time of day changes no interval between the events of a session.

    Args:
        write: open the journal to append. A damaged journal is renamed, and its intact beginning taken over.
        owned: raises an error if another driver owns the folder now.

    Raises:
        CampaignError: the file cannot be opened, a newer psiflow wrote it, or, for reading, it is not a journal or
            is damaged.
    """

    def __init__(self, path: Path, write: bool = False, owned: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._number, self._seal = 0, ""
        self._tip = Tip(path)
        self._owned = owned
        self._file: int | None = None
        self._offset = time.time() - time.monotonic()
        self._unsettled: set[Path] = set()
        self._settled_until = 0.0
        self.damaged: Path | None = None
        """The new name of a damaged journal."""
        self.lost = 0
        """Events known to be lost from its end."""
        self.doubt = ""
        """Why the number of lost events is unknown."""
        try:
            if not write:
                self._connection = open_reader(path)
                return
            for log in (path.with_name(path.name + ending) for ending in LOGS):
                if os.path.lexists(log) and not log.is_file():  # SQLite would refuse to open the journal
                    put_aside(log)
            self._connection = open_writer(path)
            intact, whole = intact_rows(self._connection)
            self.lost = max(0, self._count_in_tip(bool(intact)) - len(intact))
            if self.lost or not whole:
                self._connection.close()
                self.damaged = put_journal_aside(path)
                self._connection = open_writer(path)
                with self.together():
                    self._connection.executemany(INSERT, intact)
            self._number, self._seal = len(intact), intact[-1][-1] if intact else ""
            self._tip.begin(self._number, self._seal)
            self._file = path.stat().st_ino
            if intact:  # the clock may have been set back since the last session
                self._offset = max(self._offset, intact[-1][1] - time.monotonic())
        except sqlite3.Error as error:
            remedy = f"make {path.name}, and {path.name}-wal next to it, readable and writable for this user"
            raise CampaignError(f"cannot open the journal {path}: {error}; {remedy}") from error
        except OSError as error:
            raise CampaignError(f"cannot write next to the journal {path}: {error.strerror}") from error

    def _count_in_tip(self, begun: bool) -> int:
        """The number of events according to the tip; 0 if it cannot be read."""
        try:
            return self._tip.number()
        except FileCorrupt as error:
            self.doubt = str(error) if begun else ""
            return 0

    def append(self, kind: str, data: Plain) -> Line:
        """Write one event.

        Raises:
            CampaignError: it cannot be written: the disk is full, for instance, or another driver runs the campaign
                now.
        """
        self._require_file()
        now, text = time.monotonic() + self._offset, json.dumps(data)
        seal = seal_of(self._seal, now, kind, text)
        with self._writing():
            cursor = self._connection.execute(INSERT_NEXT, (now, kind, text, seal, self._seal))
        if not cursor.rowcount:
            raise self._lost("another driver has written into its journal")
        self._number, self._seal = int(cursor.lastrowid or 0), seal
        self._unsettled.add(self._path)
        if not self._connection.in_transaction:
            self._point()
            self.settle()
        return Line(self._number, now, kind, text)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write all events of the block at its end, with a single wait for the disk."""
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
        """Update the tip, once the last event is in the journal."""
        with self._writing():
            self._tip.point(self._number, self._seal)

    @property
    def clock(self) -> Clock:
        """The journal's clock for other processes of this machine, as `since` needs it."""
        return Clock(boot=_boot(), offset=self._offset)

    def confirm(self) -> None:
        """Check that no other driver has written since the last event; raises `CampaignError` as `append`."""
        self._require_file()
        with self._writing():
            last = self._connection.execute(LAST_SEAL).fetchone()
        if (last[0] if last else "") != self._seal:
            raise self._lost("another driver has written into its journal")

    def relies_on(self, file: Path) -> None:
        """Flush a file together with the events that name it, so that it survives a loss of power as they do."""
        self._unsettled.add(file)

    def settle(self, now: bool = False) -> None:
        """Flush to the disk if it is due: all events written so far then survive a loss of power."""
        start = time.monotonic()
        if not self._unsettled or (start < self._settled_until and not now):
            return
        with self._writing():
            for file in self._unsettled - {self._path}:
                make_durable(file)
            log = self._path.with_name(self._path.name + "-wal")
            make_durable(log if log.exists() else self._path)  # without a WAL, SQLite has flushed already
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # few events are in the log alone
        self._unsettled.clear()
        end = time.monotonic()
        self._settled_until = end + (end - start) / WAITING

    def events(self, after: int = 0) -> Iterator[Line]:
        """All events with a number above ``after``, in order.

        Raises:
            CampaignError: the journal is damaged, or a newer psiflow wrote it.
        """
        try:
            refuse_newer(self._connection, self._path)
            rows = self._connection.execute(
                "SELECT * FROM events WHERE number >= ? ORDER BY number", (after,)
            ).fetchall()  # all at once: without a WAL, the writer waits until a reader has finished
            before = rows.pop(0)[-1] if after else ""
            for number, when, kind, data, seal in rows:
                if seal != seal_of(before, when, kind, data):
                    raise sqlite3.DatabaseError(f"event {number} was changed after it was written")
                before = seal
                yield Line(number, when, kind, data)
        except (sqlite3.Error, ValueError, TypeError, LookupError) as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
                raise CampaignError(
                    f"the driver of the journal {self._path} was killed while it wrote an event; "
                    "run the campaign again: this repairs it"
                ) from error
            raise CampaignError(
                f"the journal {self._path} cannot be read ({error}); run the campaign again: it takes over the "
                "intact events, and finds the tasks that workers have finished"
            ) from error

    def close(self) -> None:
        try:
            if self._unsettled:
                self.settle(now=True)
        finally:
            self._connection.close()
            self._tip.close()

    def _require_file(self) -> None:
        """Check that this driver still owns the folder, and that the file is still the one it opened."""
        try:
            self._owned()
            there = self._path.stat().st_ino
        except CampaignError:
            self._unsettled.clear()
            raise
        except OSError:
            raise self._lost("its journal is gone") from None
        if self._file not in (None, there):
            raise self._lost("its journal was replaced by another file")

    def _lost(self, why: str) -> CampaignError:
        self._unsettled.clear()  # these files belong to another driver now
        return lost(self._path.parent, why)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise CampaignError(
                f"cannot write into the journal {self._path}: {error}; check the disk and run the campaign again: "
                "no finished task is lost"
            ) from error


def since(when: float, clock: Clock | None) -> float:
    """Seconds since a journal's event, also after the machine's time of day was changed.

    Args:
        clock: the writer's; without one, or on another machine, the time of day is used.
    """
    here = clock is not None and clock.boot == _boot() != ""
    now = time.monotonic() + clock.offset if clock is not None and here else time.time()
    return max(0.0, now - when)


def _boot() -> str:
    """An identifier of the machine's boot, when its monotonic clock started; empty where the system has none."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else ""


def lost(folder: Path, why: str) -> CampaignError:
    """The error of a driver that no longer owns its campaign."""
    return CampaignError(
        f"this driver has lost the campaign in {folder}: {why}. It has stopped, and has overwritten nothing of "
        "another driver; psiflow status shows which driver runs it"
    )
