"""A campaign's folder: where its journal, labels, structures, models and task results lie, and who has it."""

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
from psiflow_core.files import read_sealed, require_end
from psiflow_core.journal import Journal, lost
from psiflow_core.structures import Plain, digest
from psiflow_core.tasks import RESULT, read_structure, write_structure

HEARTBEAT = 4.0
"""How often a driver shows that it lives. [s]"""

TAKING = 1.0
"""How long a driver tries to take a folder: who only looks at the lock has it for a moment. [s]"""


class Store:
    """The folder of one campaign.

    Args:
        labels: a folder of labels that campaigns share; by default the campaign's own.
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
        """A lock of the folder itself, by its descriptor, where its file system has such: nobody takes that away."""
        self._alive = threading.Event()
        """Set when the driver has given the folder back."""

    def exists(self) -> bool:
        """Whether there is a campaign in the folder."""
        return self.journal_file.is_file()

    def open_for_writing(self) -> Journal:
        """Take the folder for this driver, and open its journal.

        Raises:
            CampaignError: the folder cannot be written, or another driver has it.
        """
        try:
            for folder in (self.folder, self.labels, self.structures, self.models, self.tasks, self.pools):
                folder.mkdir(parents=True, exist_ok=True)
            self._take_whole()  # first: who is refused leaves no other file in the place of a lock that was removed
            if self._lock_file.exists():
                require_end(self._lock_file)
            lock = self._lock_file.open("a+", errors="replace")
        except OSError as error:
            self.release()
            raise CampaignError(
                f"cannot write into the campaign folder {self.folder}: {error.strerror} ({error.filename}); "
                "mend that, or choose another folder"
            ) from error
        try:
            self._take(lock)
            return Journal(self.journal_file, write=True, owned=self.require_own)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let another driver have the folder."""
        if self._lock is not None:
            self._alive.set()
            self._lock.truncate(0)
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # closing leaves it to a fork that has the descriptor too
            self._lock.close()
            self._lock = None
        if self._whole is not None:
            with contextlib.suppress(OSError):  # there are file systems on which no folder can be locked
                fcntl.flock(self._whole, fcntl.LOCK_UN)
            os.close(self._whole)
            self._whole = None

    def require_own(self) -> None:
        """Make sure that the folder is still this driver's; a lock that was removed is put back where that is sure.

        Raises:
            CampaignError: it is another driver's by now, or gone.
        """
        if self._holds_lock():
            return
        if not _same(self._whole, self.folder):
            raise lost(self.folder, "the folder was moved or removed")
        if self._lock_file.exists() or self._whole is None or not _locks(self._whole):
            raise lost(self.folder, f"{self._lock_file.name} was removed or replaced under it")
        again = self._lock_file.open("a+")  # whoever else starts is refused by the lock of the folder
        if not self._locked(again):
            again.close()
            raise lost(self.folder, f"{self._lock_file.name} is another driver's")
        before, self._lock = self._lock, again
        if before is not None:
            before.close()
        self._sign(again)

    def _holds_lock(self) -> bool:
        return self._lock is not None and _same(self._lock.fileno(), self._lock_file)

    def driver(self) -> str | None:
        """Who runs the campaign: `process PID on HOST`; None if nobody does.

        The lock is asked for in shared mode and given back at once: the driver that has it notices nothing, and
        one that starts tries again.
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
                f"whether a driver has the campaign cannot be seen: {self._lock_file} cannot be read ({error.strerror})"
            ) from error
        return None

    def put_structure(self, structure: Atoms) -> bool:
        """Keep a structure, by its content; returns whether it was not there, or was damaged."""
        if self.has_structure(digest(structure)):
            return False
        write_structure(self.structures, structure)
        return True

    def structure(self, key: str) -> Plain:
        """What is kept of a structure: itself, and the prediction that made it a candidate, if any.

        Raises:
            FileCorrupt: it is missing, or is not what its name says.
        """
        return read_structure(self.structures, key)

    def has_structure(self, key: str) -> bool:
        """Whether a structure is there and can be believed."""
        try:
            self.structure(key)
        except FileCorrupt:
            return False
        return True

    def relative(self, path: str) -> str:
        """A path as the journal holds it: relative inside the campaign's folder, so that this may be moved."""
        inside = Path(path).is_relative_to(self.folder)
        return str(Path(path).relative_to(self.folder)) if inside else path

    def absolute(self, path: str) -> Path:
        """The inverse of `relative`."""
        return self.folder / path

    def result(self, folder: Path) -> Plain | None:
        """The outcome that a worker left in a task's folder, if it came that far."""
        try:
            return read_sealed(folder / RESULT)
        except FileCorrupt:  # it is not durable: a loss of power may have cut it short
            return None

    def forget_result(self, folder: Path) -> None:
        """Take an outcome away that cannot be built on."""
        (folder / RESULT).unlink(missing_ok=True)

    def forget_trainings(self) -> None:
        """Take every training away, results and checkpoints: they would be gone on with."""
        for folder in self.tasks.glob("train-*/"):
            shutil.rmtree(folder, ignore_errors=True)

    def _take_whole(self) -> None:
        """Take the folder's own lock, where its file system has such."""
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
        """Keep the lock, or close its file and say who has it."""
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
        """Touch the lock's file every few seconds, until told to end; another driver's is left alone."""
        while not ended.wait(HEARTBEAT):
            with contextlib.suppress(OSError, ValueError):  # gone, or a full disk: that is told elsewhere; or closed
                if self._holds_lock():
                    os.utime(self._lock_file)

    def _beats_elsewhere(self, lock: IO[str]) -> bool:
        """Whether a driver on another host has the folder: there are file systems whose locks end at the host.

        It touches the lock's file every few seconds; one that was killed does not.
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
        """Take the lock if nobody else has it; returns whether it was taken."""
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
    """Whether what was opened is still what is found under the path."""
    if descriptor is None:
        return False
    try:
        there, opened = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)


def _locks(folder: int) -> bool | None:
    """Take the lock of a folder; False if somebody else has it, None where folders cannot be locked."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _owner(lock: IO[str]) -> str:
    """Who wrote that the lock is theirs."""
    lock.seek(0)
    return lock.read().strip() or "another process"
