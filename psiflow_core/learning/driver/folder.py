"""A campaign's folder: its journal, labels, structures, models and task results, and the driver's lock on it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import IO

from ase import Atoms

from psiflow_core.errors import CampaignError, FileCorrupt
from psiflow_core.execution.tasks.perform import RESULT
from psiflow_core.execution.tasks.request import Outcome, Request
from psiflow_core.execution.verbs.places import MARK
from psiflow_core.files import read_sealed, require_end
from psiflow_core.labels.store import read_structure, write_structure
from psiflow_core.learning.driver.journal import Journal, lost
from psiflow_core.structures import Plain, digest

HEARTBEAT = 4.0
"""The interval between two signs of life of a driver. [s]"""

TAKING = 1.0
"""How long a driver tries to lock a folder: a reader of the lock holds it for a moment. [s]"""


class Store:
    """The folder of one campaign.

    Args:
        labels: a folder of labels shared by campaigns; by default the campaign's own.
    """

    def __init__(self, folder: str | Path, labels: str | Path | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.own_labels = self.folder / "labels"
        self.labels = Path(labels).absolute() if labels else self.own_labels
        self.structures = self.folder / "structures"
        self.models = self.folder / "models"
        self.tasks = self.folder / "tasks"
        self.pools = self.folder / "pools"
        self.given = self.folder / "given"
        self.potential = self.folder / "potential"
        self.results_file = self.folder / "results.json"
        self.journal_file = self.folder / "journal.sqlite"
        self._lock_file = self.folder / "driver.lock"
        self._lock: IO[str] | None = None
        self._whole: int | None = None
        """The descriptor of a lock on the folder itself, where the file system has such locks: it cannot be removed."""
        self._alive = threading.Event()
        """Set when the driver has released the folder."""

    def exists(self) -> bool:
        """Whether the folder contains a campaign."""
        return self.journal_file.is_file()

    def open_for_writing(self) -> Journal:
        """Lock the folder for this driver, and open its journal.

        Raises:
            CampaignError: the folder cannot be written, is locked by another driver, or belongs to a context.
        """
        if (self.folder / MARK).exists():
            raise CampaignError(f"{self.folder} is the folder of a context; give the campaign another folder")
        try:
            for folder in (self.folder, self.labels, self.structures, self.models, self.tasks, self.pools):
                folder.mkdir(parents=True, exist_ok=True)
            self._take_whole()  # first: a refused driver must not replace a removed lock file
            if self._lock_file.exists():
                require_end(self._lock_file)
            lock = self._lock_file.open("a+", errors="replace")
        except OSError as error:
            self.release()
            raise CampaignError(
                f"cannot write into the campaign folder {self.folder}: {error.strerror} ({error.filename}); "
                "correct this, or choose another folder"
            ) from error
        try:
            self._take(lock)
            return Journal(self.journal_file, write=True, owned=self.require_own)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the folder for other drivers."""
        if self._lock is not None:
            self._alive.set()
            self._lock.truncate(0)
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # closed alone, a fork would keep it
            self._lock.close()
            self._lock = None
        if self._whole is not None:
            with contextlib.suppress(OSError):  # some file systems cannot lock a folder
                fcntl.flock(self._whole, fcntl.LOCK_UN)
            os.close(self._whole)
            self._whole = None

    def require_own(self) -> None:
        """Make sure that this driver still owns the folder; a removed lock file is restored where this is safe.

        Raises:
            CampaignError: another driver owns the folder now, or it is gone.
        """
        if self._holds_lock():
            return
        if not _same(self._whole, self.folder):
            raise lost(self.folder, "the folder was moved or removed")
        if self._lock_file.exists() or self._whole is None or not _locks(self._whole):
            raise lost(self.folder, f"its {self._lock_file.name} was removed or replaced")
        again = self._lock_file.open("a+")  # the lock of the folder refuses any other driver
        if not self._locked(again):
            again.close()
            raise lost(self.folder, f"{self._lock_file.name} belongs to another driver")
        before, self._lock = self._lock, again
        if before is not None:
            before.close()
        self._sign(again)

    def _holds_lock(self) -> bool:
        return self._lock is not None and _same(self._lock.fileno(), self._lock_file)

    def driver(self) -> str | None:
        """The driver that runs the campaign, as `process PID on HOST`; None without a driver.

        The lock is requested in shared mode and released at once: a running driver is not disturbed, and a
        starting driver tries again.
        """
        try:
            require_end(self._lock_file)
            with self._lock_file.open(errors="replace") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return _owner(lock)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CampaignError(
                f"cannot tell whether a driver runs the campaign: {self._lock_file} cannot be read ({error.strerror}); "
                "make it readable"
            ) from error
        return None

    def put_structure(self, structure: Atoms) -> bool:
        """Store a structure under its content hash; returns whether it was missing or damaged before."""
        if self.has_structure(digest(structure)):
            return False
        write_structure(self.structures, structure)
        return True

    def structure(self, key: str) -> Plain:
        """The stored data of a structure: the structure, and the prediction that made it a candidate, if any.

        Raises:
            FileCorrupt: the file is missing, or its content does not match its name.
        """
        return read_structure(self.structures, key)

    def has_structure(self, key: str) -> bool:
        """Whether a structure is stored and intact."""
        try:
            self.structure(key)
        except FileCorrupt:
            return False
        return True

    def relative(self, path: str) -> str:
        """A path as the journal holds it: relative inside the campaign's folder, so that the folder can be moved."""
        inside = Path(path).is_relative_to(self.folder)
        return str(Path(path).relative_to(self.folder)) if inside else path

    def absolute(self, path: str) -> Path:
        """The inverse of `relative`."""
        return self.folder / path

    def outcome(self, key: str, request: Request) -> Outcome | None:
        """The outcome that a worker left in a task's folder; None if it is missing or damaged."""
        try:
            result = read_sealed(request.own_folder / RESULT)
        except FileCorrupt:  # it is not durable: a loss of power may have truncated it
            return None
        return Outcome.read(key, request, result)

    def forget_result(self, folder: Path) -> None:
        """Remove an unusable outcome."""
        (folder / RESULT).unlink(missing_ok=True)

    def forget_trainings(self) -> None:
        """Remove the results and checkpoints of every training, so that no training resumes from them."""
        for folder in self.tasks.glob("train-*/"):
            shutil.rmtree(folder, ignore_errors=True)

    def _take_whole(self) -> None:
        """Lock the folder itself, where the file system has such locks."""
        self._whole = os.open(self.folder, os.O_RDONLY)
        deadline = time.monotonic() + TAKING
        while _locks(self._whole) is False:
            if time.monotonic() > deadline:
                os.close(self._whole)
                self._whole = None
                with self._lock_file.open() if self._lock_file.exists() else io.StringIO() as lock:
                    raise self._taken(lock)
            time.sleep(TAKING / 50)

    def _take(self, lock: IO[str]) -> None:
        """Keep the lock, or close its file and raise an error with its owner."""
        with contextlib.ExitStack() as unless_taken:
            unless_taken.callback(lock.close)
            deadline = time.monotonic() + TAKING
            while not self._locked(lock):
                if time.monotonic() > deadline:
                    raise self._taken(lock)
                time.sleep(TAKING / 50)
            if self._beats_elsewhere(lock):
                raise self._taken(lock)
            self._sign(lock)
            self._lock = lock
            unless_taken.pop_all()
        self._alive = threading.Event()
        threading.Thread(target=self._beat, args=(self._alive,), daemon=True).start()

    def _taken(self, lock: IO[str]) -> CampaignError:
        return CampaignError(f"the campaign in {self.folder} is being run by {_owner(lock)}; wait for it or stop it")

    def _sign(self, lock: IO[str]) -> None:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()

    def _beat(self, ended: threading.Event) -> None:
        """Touch the lock file every few seconds until the event is set; another driver's file is left alone."""
        while not ended.wait(HEARTBEAT):
            with contextlib.suppress(OSError, ValueError):  # gone, closed, or a full disk, which is reported elsewhere
                if self._holds_lock():
                    os.utime(self._lock_file)

    def _beats_elsewhere(self, lock: IO[str]) -> bool:
        """Whether a driver on another host uses the folder: on some file systems, locks hold on one host only.

        A living driver touches the lock file every few seconds.
        """
        owner = _owner(lock)
        if not owner.startswith("process ") or owner.endswith(f" on {socket.gethostname()}"):
            return False
        before = self._lock_file.stat().st_mtime_ns
        deadline = time.monotonic() + 2.5 * HEARTBEAT
        while time.monotonic() < deadline:
            if self._lock_file.stat().st_mtime_ns != before:
                return True
            time.sleep(HEARTBEAT / 20)
        return False

    def _locked(self, lock: IO[str]) -> bool:
        """Take the lock if it is free; returns whether it was taken."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise CampaignError(
                f"files in the campaign folder {self.folder} cannot be locked: {error.strerror}; choose another folder"
            ) from error
        return True


def _same(descriptor: int | None, path: Path) -> bool:
    """Whether the path still leads to the opened file."""
    if descriptor is None:
        return False
    try:
        there, opened = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)


def _locks(folder: int) -> bool | None:
    """Take the lock of a folder; False if another process has it, None where folders cannot be locked."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _owner(lock: IO[str]) -> str:
    """The owner of a lock, as written in its file."""
    lock.seek(0)
    return lock.read().strip() or "another process"
