"""Who is at work on something that several processes, drivers and hosts share: a file beside it says so.

A claim is made by creating its file, which only one can. Whoever has it touches it every few seconds; one whose
owner has died, or that nobody has touched for `LEASE` seconds, is taken over. Clocks of hosts are never compared:
who waits looks for how long, by the own clock, the file has stayed as it was.
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
from psiflow_core.guard import born, lives

REFRESHED = 5.0
"""How often the owner of a claim shows that it lives. [s]"""

LEASE = 60.0
"""For how long nobody may have touched a claim that is believed. [s]"""


@dataclass(frozen=True)
class Owner:
    """A process that has claimed something."""

    host: str
    """With its processes' name space: containers may share a name, and not their processes."""
    pid: int
    birth: float
    token: str
    """Of this one claim."""

    @classmethod
    def here(cls) -> Owner:
        return cls(_place(), os.getpid(), born(os.getpid()), uuid.uuid4().hex)

    @property
    def is_dead(self) -> bool:
        """Whether its process is known to have ended; that of one on another host is not known."""
        return self.host == _place() and not lives(self.pid, self.birth)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"


@contextlib.contextmanager
def claimed(file: Path) -> Iterator[Owner | None]:
    """Claim what a file stands for while the block runs; gives the owner there is, and None once it is claimed here.

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
        if _owner(file) == mine:
            file.unlink(missing_ok=True)


@dataclass
class Watch:
    """Looks whether a claim of somebody else is still to be waited for."""

    file: Path
    _touched: int = -1
    _since: float = field(default_factory=time.monotonic)

    def over(self) -> bool:
        """Whether it was given back, or is dead; one that is dead is taken away."""
        owner, touched = _read(self.file)
        if touched is None:
            return True
        if touched != self._touched:
            self._touched, self._since = touched, time.monotonic()
        if time.monotonic() - self._since > LEASE or (owner is not None and owner.is_dead):
            _take_away(self.file, (owner, touched))
            return True
        return False


def holder(file: Path) -> Owner | None:
    """Who has a claim and lives; of an owner on another host that is seen within a few seconds."""
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
    """Make a claim, in the place of one that is dead; the owner of one that lives."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(3):  # another may be quicker, and may be gone again
        if _make(file, mine):
            return None
        other, touched = _read(file)
        if other is not None and not other.is_dead:
            return other
        if other is not None and not _take_away(file, (other, touched)):
            return None  # work without a claim: then two may do the same
    return other or Owner("another host", 0, 0.0, "")


def _make(file: Path, mine: Owner) -> bool:
    """Create the file; whether it was this process that did."""
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
    """Whose a claim is; None if nobody's, or if that cannot be read."""
    return _read(file)[0]


def _read(file: Path) -> tuple[Owner | None, int | None]:
    """Whose a claim is, and when it was touched last; only who opens a file is told so by a network's file system."""
    try:
        touched = file.lstat().st_mtime_ns
        require_end(file)
        with file.open("rb") as stream:
            touched = os.fstat(stream.fileno()).st_mtime_ns
            told = json.loads(stream.read())
        return Owner(str(told["host"]), int(told["pid"]), float(told["birth"]), str(told["token"])), touched
    except FileNotFoundError:
        return None, None
    except (OSError, *UNBELIEVABLE):  # it is being written, its owner's disk was full, or it is barred to this user
        return None, touched


def _take_away(file: Path, seen: tuple[Owner | None, int | None]) -> bool:
    """Remove a claim that was seen to be dead, and none that has come into its place since; whether this user may."""
    with _alone_in(file.parent):
        if _read(file) != seen:  # another one was quicker
            return True
        grave = file.with_name(f".{file.name}-{uuid.uuid4().hex[:8]}")
        try:
            file.rename(grave)
        except FileNotFoundError:
            return True
        except PermissionError:  # it is another user's, in a folder where each removes only what is theirs
            return False
    if not grave.is_dir():  # a folder is nobody's claim, and may hold something
        grave.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One at a time takes claims away in a folder, where its file system has locks; elsewhere two may do the same."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone, or barred: the removal itself tells
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refresh(file: Path, mine: Owner, ended: threading.Event) -> None:
    """Touch the claim until told to end, as long as it is this process's."""
    while not ended.wait(REFRESHED):
        with contextlib.suppress(OSError):  # a full disk, or a claim that was taken over: then two work on the same
            if _owner(file) == mine:
                os.utime(file)


def _place() -> str:
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
