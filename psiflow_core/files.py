"""Files that others see whole or not at all, and that survive a loss of power where they have to."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
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


def _sync_folder(folder: Path) -> None:
    """Write a folder's list of names to its disk, where its file system can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what CIFS and some FUSE file systems say
            raise


def _sync(path: Path) -> None:
    """Wait until what was written is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
