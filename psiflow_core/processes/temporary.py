"""Folders of temporary files whose names are short enough for sockets."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SOCKETS = 75
"""The longest TMPDIR in which sockets can be made: a socket's path has 107 characters, and Python adds 32."""

SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""The folders for a short name of a TMPDIR that is too long."""


def short_folder() -> str | None:
    """A folder with a name that is short enough for sockets; None if the usual one is short enough, or none is."""
    if len(tempfile.gettempdir()) <= SOCKETS:
        return None
    return next((folder for folder in SHORT if os.access(folder, os.W_OK | os.X_OK)), None)


def short_name(place: Path) -> dict[str, str]:
    """A short name (a link) for the folder of temporary files, if its own name is too long."""
    if len(tempfile.gettempdir()) <= SOCKETS or len(str(place / "tmp")) > SOCKETS:
        return {}
    (place / "tmp").symlink_to(tempfile.gettempdir(), target_is_directory=True)
    return {"TMPDIR": str(place / "tmp")}
