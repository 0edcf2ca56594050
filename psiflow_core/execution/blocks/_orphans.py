"""Cancels the jobs that dead drivers have left, as the records in the folders of their pools say."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from psiflow_core.components import Pool
from psiflow_core.errors import PsiflowError
from psiflow_core.execution.blocks._record import DRIVER, RECORD, Left, close, left
from psiflow_core.execution.blocks._scaling import pause
from psiflow_core.execution.blocks.base import Blocks
from psiflow_core.execution.blocks.scheduler import SchedulerUnavailable
from psiflow_core.processes.claims import EXPIRY, Watch
from psiflow_core.registry.plugins import registry

logger = logging.getLogger("psiflow.pools")

LOOK = 2.0
"""Time between two looks at the claims of drivers on other hosts. [s]"""

LEAVING = 5.0
"""How long its thread may take to end. [s]"""


class Orphans:
    """Cancels them in a thread of its own: a scheduler may not answer, and a driver on another host may live.

    Args:
        folders: the folders of pools.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        files = [file for folder in folders for file in sorted(folder.glob(f"*/{RECORD}"))]
        self._records = {file: Watch(file.with_name(DRIVER)) for file in files}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="psiflow-orphans", daemon=True)

    def start(self) -> None:
        if self._records:
            self._thread.start()

    def stop(self) -> None:
        """Let it end; what is left then is for the next driver."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(LEAVING)

    def _run(self) -> None:
        waiting, failures, begun = dict(self._records), 0, time.monotonic()
        while waiting and not self._over.is_set():
            if not failures and time.monotonic() - begun > EXPIRY + 10 * LOOK:
                return  # the drivers of the others live
            for file, claim in list(waiting.items()):
                try:
                    if self._settled(file, claim):
                        del waiting[file]
                except SchedulerUnavailable as error:
                    failures += 1
                    logger.warning("the jobs in %s cannot be cancelled yet: %s", file, error)
                except Exception as error:  # its executor is a third party's, or gone
                    del waiting[file]
                    logger.error("the jobs in %s cannot be cancelled; do it by hand: %s", file, error)
            self._over.wait(max(LOOK, pause(failures)))

    def _settled(self, file: Path, claim: Watch) -> bool:
        """Whether nothing is left of a record, or it is a living driver's."""
        found = left(file)
        if found is None:
            return True
        if not claim.over():
            return False
        self._cancel(found, file.parent)
        close(file)
        return True

    def _cancel(self, found: Left, folder: Path) -> None:
        executor = registry().find("executor", found.executor).component.parse(found.options)
        if not isinstance(executor, Blocks):
            raise PsiflowError(f"executor '{found.executor}' has no scheduler")
        scheduler = executor.scheduler(Pool(folder.name, folder, (), os.getpid()))
        jobs = {*found.jobs, *scheduler.find(found.tag).values()}
        if jobs:
            scheduler.cancel(sorted(jobs))
            logger.warning("jobs of a driver that has died are cancelled: %s", ", ".join(sorted(jobs)))
