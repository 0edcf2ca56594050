"""Parsl's keys for encrypted connections, on nodes that see no files of the driver: they come in a variable."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from psiflow_core.processes.limits import PLACE

KEYS = "PSIFLOW_KEYS"
"""The variable, with the content of files as JSON. Tasks do not see it."""

FILES = ("client.key_secret", "server.key")
"""The files that a manager of workers reads."""


def packed(folder: Path | None) -> Mapping[str, str]:
    """The variable.

    Args:
        folder: of the keys; None without encryption.
    """
    content = {} if folder is None else {name: (folder / name).read_text() for name in FILES}
    return {KEYS: json.dumps(content)}


def with_local_files(arguments: list[str]) -> list[str]:
    """The arguments of a manager, with keys and logs in the folder of its guard, if the driver's files are not here."""
    content = os.environ.pop(KEYS, None)
    if content is None:
        return arguments
    place, files = Path(os.environ[PLACE]), json.loads(content)
    folder = place / "keys"
    folder.mkdir(mode=0o700)
    for name, text in files.items():
        (folder / name).write_text(text)
    if files:  # Parsl reads the server's public key from the file of its secret, and wants a secret there
        (folder / "server.key_secret").write_text(f'{files["server.key"]}    secret-key = "none"\n')
    local = {"--logdir": str(place / "logs")} | ({"--cert_dir": str(folder)} if files else {})
    named = zip(["", *arguments], arguments, strict=False)
    return [local.get(option, value) for option, value in named]
