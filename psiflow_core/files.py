"""Files that others see whole or not at all, that survive a loss of power where they have to, and that are believed.

A file of psiflow's own gives its content, or `FileCorrupt` in one sentence, whatever has become of it. One that holds
plain data is sealed with a hash over them: a digit that a disk has changed is noticed.
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

SEAL = "seal"
"""Under this name stands the hash of everything else in a sealed file."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; raises `OSError` where it cannot be read."""
    require_end(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file that others see whole or not at all.

    Args:
        durable: it survives a loss of power once it is seen; without, only the death of processes.
    """
    with _replacing(path, durable) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, plain: Any, durable: bool = False) -> None:
    """Write plain data so that others see all of it or nothing; `durable` survives a loss of power."""
    write_atomically(path, json.dumps(plain).encode(), durable)


def write_sealed(path: Path, plain: dict[str, Any], durable: bool = False) -> None:
    """Write plain data, their keys text, so that `read_sealed` knows whether they are still what was written."""
    write_atomically(path, sealed(plain), durable)


def sealed(plain: dict[str, Any]) -> bytes:
    """The content of the file that `write_sealed` writes."""
    return json.dumps({**plain, SEAL: _seal(plain)}).encode()


def read_sealed(path: Path, kind: type[FileCorrupt] = FileCorrupt) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Raises:
        FileCorrupt, as ``kind``: the file is missing, cannot be read, or is not what was written.
    """
    plain = read_json(path, (), kind)
    if plain.pop(SEAL, None) != _seal(plain):
        raise kind(f"{path} is damaged: it is not what was written")
    return plain


def read_json(path: Path, keys: Iterable[str], kind: type[FileCorrupt] = FileCorrupt) -> dict[str, Any]:
    """A JSON object with these keys, of a file that has no seal.

    Raises:
        FileCorrupt, as ``kind``: the file is missing, cannot be read, or holds something else.
    """
    with believing(path, kind):
        plain = json.loads(path.read_bytes())
        if not isinstance(plain, dict):
            raise TypeError(f"no JSON object, but {type(plain).__name__}")
        missing = [key for key in keys if key not in plain]
        if missing:
            raise KeyError(", ".join(missing))
    return plain


@contextlib.contextmanager
def believing(path: Path, kind: type[FileCorrupt] = FileCorrupt) -> Iterator[None]:
    """Read a file of psiflow's own, and make of its content what it should be.

    Raises:
        FileCorrupt, as ``kind``: whatever goes wrong in the block is the file's fault.
    """
    try:
        require_end(path)
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise kind(f"{path} is missing") from error
    except OSError as error:
        raise kind(f"{path} cannot be read ({error.strerror})", barred=isinstance(error, PermissionError)) from error
    except UNBELIEVABLE as error:
        raise kind(f"{path} is damaged: it cannot be read ({type(error).__name__}: {error})") from error


UNBELIEVABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What reading a file raises that holds something else than it should."""


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write into a campaign's folder.

    Raises:
        CampaignError: it takes nothing.
    """
    try:
        yield
    except OSError as error:
        raise CampaignError(
            f"cannot write into {folder}: {error.strerror}; what is there is kept. Mend that and run the same again, "
            "or copy the campaign and go on with the copy"
        ) from error


def holds(path: Path, content: bytes) -> bool:
    """Whether a file can be read and has this content."""
    try:
        require_end(path)
        return path.read_bytes() == content
    except OSError:
        return False


def require_end(path: Path) -> None:
    """Raise `OSError` for what is never read to its end: whoever opens a pipe waits, and a device may give for ever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no file, but a pipe, a socket or a device", str(path))


def put_aside(path: Path) -> None:
    """Give what lies at a path, and cannot be believed, another name beside it."""
    target = path.with_name(f"{path.name}.damaged")
    path.rename(target if not target.exists() else target.with_name(f"{target.name}-{uuid.uuid4().hex[:8]}"))


def _seal(plain: dict[str, Any]) -> str:
    """A hash that does not depend on the order of the keys; what is not a number is allowed, for losses may be so."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_durable(path: Path) -> None:
    """Wait until a file, and its name, would survive a loss of power; the name of its folder, too."""
    _sync(path)
    _sync_folder(path.parent)
    _sync_folder(path.parent.parent)


def copy_atomically(source: Path, target: Path) -> None:
    """A copy of a file that others see whole or not at all, and that survives a loss of power once it is seen."""
    with _replacing(target, durable=True) as temporary:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def _replacing(path: Path, durable: bool) -> Iterator[Path]:
    """A file beside ``path`` that takes its place when the block has ended well, and is gone otherwise."""
    _make_folder(path.parent, durable)
    temporary = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        yield temporary
        if durable:
            _sync(temporary)
        if path.is_dir():
            put_aside(path)  # a folder in the place of a file is nobody's, and nothing could be written there
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path, durable: bool) -> None:
    """A folder, its parents included; where `durable`, its name survives a loss of power."""
    if not folder.is_dir():
        _make_folder(folder.parent, durable)
        folder.mkdir(exist_ok=True)
        if durable:
            _sync_folder(folder.parent)


NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EROFS)
"""What CIFS and some FUSE file systems say of folders; and those of others, to which this user adds nothing."""


def _sync_folder(folder: Path) -> None:
    """Write a folder's list of names to its disk, where its file system can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in NOT_SYNCED:
            raise


def _sync(path: Path) -> None:
    """Wait until what was written is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
