"""Reading and writing of psiflow's own files: atomic, durable where necessary, and checked for damage.

Reading one of these files gives its content or raises `FileCorrupt` with one sentence. A file of plain data is sealed
with a hash of the data: even one changed digit is noticed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from psiflow_core.errors import CampaignError, FileCorrupt

LATE = 90.0
"""How long a file may take to appear on another machine: network file systems remember the absence of files. [s]"""

LOCAL = frozenset(
    [
        *("apfs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "ntfs", "overlay", "ramfs"),
        *("reiserfs", "rootfs", "tmpfs", "vfat", "xfs", "zfs"),
    ]
)
"""File systems of one machine, on which a file appears at once."""

SEAL = "seal"
"""The key of a sealed file's hash, which covers all other keys."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; raises `OSError` if it cannot be read."""
    require_end(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file atomically: other processes see all of it or nothing.

    Args:
        path: the file.
        content: its new content.
        durable: the file also survives a loss of power, not only the death of processes.
    """
    with replacing(path, durable) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, plain: Any, durable: bool = False) -> None:
    """Write plain data atomically as JSON; with `durable`, the file survives a loss of power."""
    write_atomically(path, json.dumps(plain).encode(), durable)


def write_sealed(path: Path, plain: dict[str, Any], durable: bool = False) -> None:
    """Write plain data with text keys and a hash, by which `read_sealed` notices any change."""
    write_atomically(path, sealed(plain), durable)


def sealed(plain: dict[str, Any]) -> bytes:
    """The content of the file that `write_sealed` writes."""
    return json.dumps({**plain, SEAL: _seal(plain)}).encode()


def read_sealed(path: Path, kind: type[FileCorrupt] = FileCorrupt) -> dict[str, Any]:
    """The data that `write_sealed` wrote.

    Raises:
        FileCorrupt, as ``kind``: the file is missing, cannot be read, or has changed.
    """
    plain = read_json(path, (), kind)
    if plain.pop(SEAL, None) != _seal(plain):
        raise kind(f"{path} is damaged: its content has changed since it was written")
    return plain


def read_json(path: Path, keys: Iterable[str], kind: type[FileCorrupt] = FileCorrupt) -> dict[str, Any]:
    """A JSON object with these keys, from a file without a seal.

    Raises:
        FileCorrupt, as ``kind``: the file is missing, cannot be read, or holds something else.
    """
    with believing(path, kind):
        plain = json.loads(path.read_bytes())
        if not isinstance(plain, dict):
            raise TypeError(f"not a JSON object, but {type(plain).__name__}")
        missing = [key for key in keys if key not in plain]
        if missing:
            raise KeyError(", ".join(missing))
    return plain


def may_be_late(path: Path) -> bool:
    """Whether a missing file may appear later: it is on a file system of several machines, or on an unknown one.

    Its folder is opened anew, because that renews what some of these file systems remember.
    """
    if path.exists() or file_system(path) in LOCAL:
        return False
    with contextlib.suppress(OSError):
        os.listdir(path.parent)
    return not path.exists()


def file_system(path: Path) -> str:
    """The type of the file system of a path, by the system's table of mounts; empty if that is unknown."""
    with contextlib.suppress(OSError):
        mounts = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()]
        found = [(words[4].replace("\\040", " "), words[words.index("-") + 1]) for words in mounts if "-" in words]
        real = path.absolute().resolve()
        inside = [(len(place), kind) for place, kind in found if real.is_relative_to(place)]
        return max(inside, default=(0, ""))[1]
    return ""


@contextlib.contextmanager
def believing(path: Path, kind: type[FileCorrupt] = FileCorrupt) -> Iterator[None]:
    """A block that reads and parses one of psiflow's own files.

    Raises:
        FileCorrupt, as ``kind``: the file is missing or cannot be read, or its content raised an error in the block.
    """
    try:
        require_end(path)
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise kind(f"{path} is missing", late=may_be_late(path)) from error
    except OSError as error:
        raise kind(f"{path} cannot be read ({error.strerror})", barred=isinstance(error, PermissionError)) from error
    except UNBELIEVABLE as error:
        raise kind(f"{path} is damaged: it cannot be read ({type(error).__name__}: {error})") from error


UNBELIEVABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""The errors of code that parses a damaged file."""


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write into a campaign's folder.

    Raises:
        CampaignError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise CampaignError(
            f"cannot write into {folder}: {error.strerror}; its files are kept. Remove the cause and run the same "
            "again, or copy the campaign and continue with the copy"
        ) from error


def holds(path: Path, content: bytes) -> bool:
    """Whether a file can be read and has this content."""
    try:
        require_end(path)
        return path.read_bytes() == content
    except OSError:
        return False


def require_end(path: Path) -> None:
    """Raise `OSError` for files without an end: reading a pipe may wait forever, and so may reading a device."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is not a file, but a pipe, a socket or a device", str(path))


def put_aside(path: Path) -> None:
    """Rename a damaged file or folder, in the same folder."""
    target = path.with_name(f"{path.name}.damaged")
    path.rename(target if not target.exists() else target.with_name(f"{target.name}-{uuid.uuid4().hex[:8]}"))


def _seal(plain: dict[str, Any]) -> str:
    """A hash that does not depend on the order of the keys. NaN and infinity are allowed, because losses may be so."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_durable(path: Path) -> None:
    """Wait until a file, its name and the name of its folder would survive a loss of power."""
    _sync(path)
    _sync_folder(path.parent)
    _sync_folder(path.parent.parent)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file atomically; the copy survives a loss of power."""
    with replacing(target, durable=True) as temporary:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def replacing(path: Path, durable: bool) -> Iterator[Path]:
    """A temporary file next to ``path``. It replaces ``path`` if the block succeeds, and is deleted otherwise."""
    make_folder(path.parent, durable)
    temporary = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        yield temporary
        if durable:
            _sync(temporary)
        if path.is_dir():
            put_aside(path)  # a folder in the place of the file would prevent the replacement
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path, durable: bool) -> None:
    """Make a folder and its parents; with `durable`, their names survive a loss of power."""
    if not folder.is_dir():
        make_folder(folder.parent, durable)
        folder.mkdir(exist_ok=True)
        if durable:
            _sync_folder(folder.parent)


NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EROFS)
"""The errors of syncing a folder on CIFS and some FUSE file systems, and of other users' folders."""


def _sync_folder(folder: Path) -> None:
    """Write a folder's list of names to the disk, if its file system can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in NOT_SYNCED:
            raise


def _sync(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
