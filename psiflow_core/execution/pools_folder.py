"""The folder for the scripts and logs of a context's pools."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

from psiflow_core.execution.blocks._record import RECORD, left

HOME = "~/.psiflow/pools"
"""The folder for the folders of contexts without one of their own that have workers on other machines."""


class PoolsFolder:
    """A given folder, which stays, or a new one, which is deleted at the end.

    A new one lies where nodes see it if there are workers on other machines. It stays if a pool has failed, or if a job
    could not be cancelled: the next driver does that.

    Args:
        remote: whether there are workers on other machines.
        name: the first letters of a new folder's name.
    """

    def __init__(self, given: Path | None, remote: bool, name: str) -> None:
        self._home = Path(HOME).expanduser()
        self._in_home = given is None and remote
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if given is not None:
            given.mkdir(parents=True, exist_ok=True)
            self.path = given.absolute()
        elif remote:
            self._home.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix=f"{socket.gethostname()}-{name}-", dir=self._home))
        else:
            self._temporary = tempfile.TemporaryDirectory(prefix="psiflow-", ignore_cleanup_errors=True)
            self.path = Path(self._temporary.name)

    def all(self) -> Iterable[Path]:
        """The folders of pools in which dead drivers may have left jobs."""
        return self._home.glob("*") if self._in_home else [self.path]

    def close(self, well: bool) -> None:
        """The pools have ended; says whether none has failed."""
        if self._temporary is not None:
            self._temporary.cleanup()
        elif well and self._in_home and not any(map(left, self.path.glob(f"*/{RECORD}"))):
            shutil.rmtree(self.path, ignore_errors=True)
