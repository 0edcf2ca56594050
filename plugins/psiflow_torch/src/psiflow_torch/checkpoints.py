"""Checkpoints: files that are whole, or count as missing."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from psiflow_core.files import write_atomically
from psiflow_torch.engine import torch

DAMAGED = (OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)
"""Errors from a zip archive that is missing, unreadable, truncated or changed."""


def write(checkpoint: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain data, completely or not at all."""
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(checkpoint, content.getvalue())


def read(checkpoint: Path) -> dict[str, Any] | None:
    """The contents of a checkpoint; None if it is missing or damaged, which only costs its steps again."""
    if not _is_whole(checkpoint):
        return None
    return dict(torch.load(checkpoint, map_location="cpu", weights_only=True))


def _is_whole(checkpoint: Path) -> bool:
    """Whether all checksums in the file are right: torch's files are zip archives."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except DAMAGED:
        return False
