"""The last words of a pool's processes: what their guards have kept of them, made short."""

from __future__ import annotations

import re
from pathlib import Path

from psiflow_core.guard import SAID

TAIL = 20_000
"""Bytes at the end of a file in which last words are looked for."""

SHOWN = 3
"""Lines of them that are shown."""

LONGEST = 400
"""Characters of such a line."""

ERROR = re.compile(
    r"^[\w.]*(Error|Exception|Exit|Interrupt|Failed|Lost|Warning)\b.*:|\b(error|fatal|cannot|denied)\b", re.I
)
"""What a line that tells of an error looks like: the end of a traceback, or a shell's or a loader's complaint."""


def said(pool: Path, name: str) -> str:
    """What a guarded process of a pool, or those of its name on several machines, said at the end."""
    files = sorted((pool / SAID).glob(f"{name}.*"), key=lambda file: file.stat().st_mtime)
    return "\n".join(_tail(file) for file in files)


def last_words(text: str) -> str:
    """The last lines that tell of an error, or simply the last lines, in one; empty where there are none."""
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    telling = [line for line in lines if ERROR.search(line)] or lines
    return " | ".join(line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in telling[-SHOWN:])


def _tail(file: Path) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL))
        return stream.read().decode(errors="replace")
