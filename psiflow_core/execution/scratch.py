"""The working directory of a task, which also keeps its output.

Working directory and standard output belong to a process, not to a thread. They are redirected only for a task that
is alone in its process, as on workers; tasks in threads of the driver (executor `threads`) stay in the driver's
directory, and print to its terminal.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

OUTPUT = "output.txt"
"""The file in a task's folder with its standard output and errors."""

KEPT = 64 * 2**10
"""Bytes kept of the beginning, and of the end, of a long output."""

PERIOD = 1.0
"""Interval between two checks of the length of an output. [s]"""


def alone() -> bool:
    """Whether a task is alone in this process."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def inside(folder: Path | None) -> Iterator[None]:
    """Change into a folder, or into a temporary one without it, if the task is alone in its process."""
    if not alone():
        yield
        return
    with contextlib.ExitStack() as after:
        place = folder or Path(after.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        before = os.open(".", os.O_RDONLY)  # by descriptor: it may have been moved or deleted
        after.callback(os.close, before)
        os.chdir(place)
        after.callback(os.fchdir, before)
        yield


@contextlib.contextmanager
def printing_to(folder: Path | None) -> Iterator[None]:
    """Keep the output of Python, of libraries and of their programs in a file of the folder."""
    if folder is None or not alone():
        yield
        return
    file, ended = folder / OUTPUT, threading.Event()
    kept = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    watch = threading.Thread(target=_keep_short, args=(file, ended), daemon=True)
    try:
        watch.start()
        with _redirected(kept):
            yield
    finally:
        os.close(kept)
        ended.set()
        watch.join()
        with contextlib.suppress(OSError):  # the folder is gone, or the disk full: the task reports it, if it matters
            shorten(file)
            if not file.stat().st_size:
                file.unlink()


@contextlib.contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    """Redirect standard output and errors, of Python and of the process, to a descriptor."""
    _flush()
    before = {number: os.dup(number) for number in (1, 2)}
    stream = io.TextIOWrapper(  # type: ignore[type-var]
        _Forgiving(descriptor), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    try:
        for number in before:
            os.dup2(descriptor, number)
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            yield
    finally:
        _flush()
        for number, original in before.items():
            os.dup2(original, number)
            os.close(original)


class _Forgiving(io.BufferedIOBase):
    """Writes to a descriptor; on a full disk output is lost, because a task must not fail over its output."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, content: bytes) -> int:  # type: ignore[override]
        with contextlib.suppress(OSError):
            os.write(self._descriptor, content)
        return len(content)


def _flush() -> None:
    """Flush the buffers of Python and C, so that output reaches its own file."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there may be none, or a closed one
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _keep_short(file: Path, ended: threading.Event) -> None:
    while not ended.wait(PERIOD):
        with contextlib.suppress(OSError):
            shorten(file, 8 * KEPT)


def shorten(file: Path, allowed: int = 2 * KEPT) -> None:
    """Keep the beginning and the end of a file that is longer than allowed."""
    length = file.stat().st_size
    if length <= allowed:
        return
    with file.open("r+b") as content:
        content.seek(length - KEPT)
        end = content.read()
        content.truncate(KEPT)
        content.seek(0, os.SEEK_END)
        content.write(f"\n… {length - 2 * KEPT} bytes left out …\n".encode() + end)


def last_words(folder: Path, lines: int = 3) -> list[str]:
    """The last lines of a task's output, without empty ones."""
    file = folder / OUTPUT
    if not file.is_file():
        return []
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - KEPT))
        told = content.read().decode(errors="replace").splitlines()
    return [line.strip() for line in told if line.strip()][-lines:]
