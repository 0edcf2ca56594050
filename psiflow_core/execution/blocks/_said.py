"""The last output of a pool's processes, as kept by their guards, shortened."""

from __future__ import annotations

import re
from pathlib import Path

from psiflow_core.processes.guard import SAID

TAIL = 20_000
"""Bytes at the end of a file that are searched for errors."""

SHOWN = 3
"""Lines that are shown."""

LONGEST = 400
"""Characters of such a line."""

ERROR = re.compile(
    r"^[\w.]*(Error|Exception|Exit|Interrupt|Failed|Lost|Warning)\b.*:|\b(error|fatal|cannot|denied)\b", re.I
)
"""Patterns of lines with an error: the end of a traceback, or the message of a shell or a loader."""


def said(pool: Path, name: str) -> str:
    """The last output of a guarded process of a pool, or of the processes of that name on several machines."""
    files = sorted((pool / SAID).glob(f"{name}.*"), key=lambda file: file.stat().st_mtime)
    return "\n".join(_tail(file) for file in files)


def last_words(text: str) -> str:
    """The last lines with an error, or else the last lines, joined into one; empty without any."""
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    telling = [line for line in lines if ERROR.search(line)] or lines
    return " | ".join(line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in telling[-SHOWN:])


def _tail(file: Path) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL))
        return stream.read().decode(errors="replace")
