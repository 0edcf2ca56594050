"""Claims on things that several processes and hosts share: a claim is a file that names its owner.

A process makes a claim by creating the file; only one process can do that. The owner touches the file every few
seconds. A claim is taken over when its owner has died, or when its file has not been touched for `EXPIRY` seconds.
The clocks of hosts are never compared: a waiting process measures with its own clock how long the file has not
changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from psiflow_core.files import UNBELIEVABLE, require_end
from psiflow_core.processes.guard import born, lives

REFRESHED = 5.0
"""How often the owner of a claim touches its file. [s]"""

EXPIRY = 60.0
"""A claim that was not touched for so long is abandoned. [s]"""


@dataclass(frozen=True)
class Owner:
    """A process that has claimed something."""

    host: str
    """With the name space of its processes: containers may share a host's name without sharing its processes."""
    pid: int
    birth: float
    token: str
    """Different for every claim."""

    @classmethod
    def here(cls) -> Owner:
        return cls(_place(), os.getpid(), born(os.getpid()), uuid.uuid4().hex)

    @property
    def is_dead(self) -> bool:
        """Whether its process has certainly ended; False for a process on another host, whose state is unknown."""
        return self.host == _place() and not lives(self.pid, self.birth)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"


@contextlib.contextmanager
def claimed(file: Path) -> Iterator[Owner | None]:
    """Hold a claim while the block runs. Gives None, or the other owner if there is one; then nothing is claimed.

    Raises:
        OSError: the file cannot be written.
    """
    mine = Owner.here()
    other = _take(file, mine)
    if other is not None:
        yield other
        return
    ended = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(file, mine, ended), daemon=True)
    refresher.start()
    try:
        yield None
    finally:
        ended.set()
        refresher.join()
        _release(file, mine)


class Claims:
    """Claims that this process holds for tasks elsewhere, refreshed by one thread. It is safe to use from threads."""

    def __init__(self) -> None:
        self._held: dict[Path, Owner] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._refresher = threading.Thread(target=self._keep, name="psiflow-claims", daemon=True)

    def take(self, file: Path) -> Owner | None:
        """Hold a claim; returns None, or the other owner if there is one. Raises `OSError` as `claimed`."""
        mine = Owner.here()
        other = _take(file, mine)
        if other is None:
            with self._lock:
                self._held[file] = mine
                if self._refresher.ident is None:
                    self._refresher.start()
        return other

    def release(self, file: Path) -> None:
        """Give up a claim, if it is held."""
        with self._lock:
            mine = self._held.pop(file, None)
        if mine is not None:
            _release(file, mine)

    def close(self) -> None:
        """Give up all claims."""
        self._ended.set()
        for file in list(self._held):
            self.release(file)

    def _keep(self) -> None:
        while not self._ended.wait(REFRESHED):
            with self._lock:
                held = list(self._held.items())
            for file, mine in held:
                _touch(file, mine)


@dataclass
class Watch:
    """Checks whether the claim of another process is still held."""

    file: Path
    _touched: int = -1
    _since: float = field(default_factory=time.monotonic)

    def over(self) -> bool:
        """Whether the claim was released or is abandoned; an abandoned claim is removed."""
        owner, touched = _read(self.file)
        if touched is None:
            return True
        if touched != self._touched:
            self._touched, self._since = touched, time.monotonic()
        if time.monotonic() - self._since > EXPIRY or (owner is not None and owner.is_dead):
            _take_away(self.file, (owner, touched))
            return True
        return False


def holder(file: Path) -> Owner | None:
    """The living owner of a claim; None if there is none. For an owner on another host, this takes a few seconds."""
    owner, before = _read(file)
    if owner is None or owner.is_dead or owner.host == _place():
        return None if owner is None or owner.is_dead else owner
    deadline = time.monotonic() + 2.5 * REFRESHED
    while time.monotonic() < deadline:
        if _read(file)[1] not in (before, None):
            return owner
        time.sleep(REFRESHED / 20)
    return None


def _take(file: Path, mine: Owner) -> Owner | None:
    """Make a claim, and replace an abandoned one. Returns None, or the living owner of the present claim."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(3):  # another process may be quicker, and may end in the meantime
        if _make(file, mine):
            return None
        other, touched = _read(file)
        if other is not None and not other.is_dead:
            return other
        if other is not None and not _take_away(file, (other, touched)):
            return None  # work without a claim: two processes may then do the same work
    return other or Owner("another host", 0, 0.0, "")


def _make(file: Path, mine: Owner) -> bool:
    """Create the file; returns whether this process created it."""
    try:
        with file.open("x") as stream:
            stream.write(json.dumps(vars(mine)))
    except FileExistsError:
        return False
    except OSError:
        file.unlink(missing_ok=True)
        raise
    return True


def _owner(file: Path) -> Owner | None:
    """The owner of a claim; None if there is no claim, or it cannot be read."""
    return _read(file)[0]


def _read(file: Path) -> tuple[Owner | None, int | None]:
    """The owner of a claim, and when it was last touched. A network file system gives this time only for open files."""
    try:
        touched = file.lstat().st_mtime_ns
        require_end(file)
        with file.open("rb") as stream:
            touched = os.fstat(stream.fileno()).st_mtime_ns
            owner = json.loads(stream.read())
        return Owner(str(owner["host"]), int(owner["pid"]), float(owner["birth"]), str(owner["token"])), touched
    except FileNotFoundError:
        return None, None
    except (OSError, *UNBELIEVABLE):  # it is being written, its owner's disk was full, or this user may not read it
        return None, touched


def _take_away(file: Path, seen: tuple[Owner | None, int | None]) -> bool:
    """Remove an abandoned claim, but not a newer one in its place; returns whether this user may remove it."""
    with _alone_in(file.parent):
        if _read(file) != seen:  # another process was quicker
            return True
        grave = file.with_name(f".{file.name}-{uuid.uuid4().hex[:8]}")
        try:
            file.rename(grave)
        except FileNotFoundError:
            return True
        except PermissionError:  # it belongs to another user, in a folder where users remove only their own files
            return False
    if not grave.is_dir():  # a folder is not a claim, and may hold files
        grave.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time removes claims in a folder, if its file system has locks; without locks, two may."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone, or this user may not open it: the removal itself will fail
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refresh(file: Path, mine: Owner, ended: threading.Event) -> None:
    """Touch the claim until ``ended`` is set, as long as it belongs to this process."""
    while not ended.wait(REFRESHED):
        _touch(file, mine)


def _touch(file: Path, mine: Owner) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a lost claim: two processes may then do the same work
        if _owner(file) == mine:
            os.utime(file)


def _release(file: Path, mine: Owner) -> None:
    if _owner(file) == mine:
        file.unlink(missing_ok=True)


def _place() -> str:
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
