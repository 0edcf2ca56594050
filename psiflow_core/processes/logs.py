"""Log files: the lines of one thread, in the folder of the work that it does.

A log is never read back, and work goes on if its log cannot be written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from psiflow_core.errors import OptionError
from psiflow_core.files import require_end
from psiflow_core.texts import one_line

LOG = "psiflow.log"
"""The name of a log in its folder."""

LEVEL = "PSIFLOW_LOG"
"""The environment variable for the lowest level of the lines in the log."""

LEVELS = ("debug", "info", "warning", "error")

LIMIT = 1000
"""Characters of a line; the whole message of a failure is in the journal."""


def level() -> int:
    """The level set in the environment, `info` by default.

    Raises:
        OptionError: it is not a level.
    """
    wanted = os.environ.get(LEVEL, "info")
    if wanted.lower() not in LEVELS:
        raise OptionError(f"{LEVEL}={wanted!r} is no log level: use one of {', '.join(LEVELS)}")
    return int(logging.getLevelName(wanted.upper()))


@contextlib.contextmanager
def written_to(file: Path, least: int) -> Iterator[None]:
    """Append the lines of this thread to a file: each campaign and each context of a process has its log."""
    handler = _handler(file)
    if handler is None:
        yield
        return
    thread, root = threading.get_ident(), logging.getLogger("psiflow")
    handler.setLevel(least)
    handler.setFormatter(_Line("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S%z"))
    handler.addFilter(lambda record: record.thread == thread)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with contextlib.suppress(OSError):  # the disk is full: the journal reports it
            handler.close()


def _handler(file: Path) -> logging.Handler | None:
    try:
        if file.exists():
            require_end(file)
        return _File(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        warnings.warn(f"there is no log of this session: {file} cannot be written ({error.strerror})", stacklevel=2)
        return None


class _File(logging.FileHandler):
    """A file whose disk may be full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the line; the journal reports a full disk."""


class _Line(logging.Formatter):
    """A log entry as one line of bounded length, also if it contains the output of an engine."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record), LIMIT)
