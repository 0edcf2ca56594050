"""The driver: reads the journal, starts the planned tasks, records their outcomes."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Protocol

from psiflow_core.errors import CampaignError
from psiflow_core.execution.desk import Desk
from psiflow_core.execution.failures import NO_DISK
from psiflow_core.execution.workers import Workers
from psiflow_core.learning.driver import log
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.integrity import no_disk, tell
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.orders import Orders
from psiflow_core.learning.driver.request import Campaign
from psiflow_core.learning.driver.session import Session
from psiflow_core.learning.driver.vouching import missing_results
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.processes import logs


class Display(Protocol):
    """Shows a campaign while it runs."""

    def showing(self, state: State, settings: Settings, folder: Path) -> AbstractContextManager[Callable[[str], None]]:
        """A function to call after every change, with a short text on the present activity."""


class Driver:
    """Runs one campaign in one folder.

    Args:
        display: shows the campaign while it runs.
        write_results: writes the results at the end of the campaign.

    Raises:
        OptionError: `PSIFLOW_LOG` is not a log level.
    """

    def __init__(
        self,
        campaign: Campaign,
        folder: Path,
        labels: str | Path | None,
        display: Display,
        write_results: Callable[[Store, State, Orders], None],
        grace: float,
    ) -> None:
        self._campaign = campaign
        self._store = Store(folder, labels)
        self._display = display
        self._write_results = write_results
        self._grace = grace
        self._level = logs.level()
        self._stop = _Stop()

    def run(self, context: Workers) -> State:
        """Continue from the end of the journal until the campaign ends.

        Raises:
            CampaignError: the folder is in use or belongs to another campaign, or too many tasks failed.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the message says how to continue.
            EngineMissing, OptionError, StructureError: a check on a worker failed.
        """
        with contextlib.ExitStack() as cleanup:
            journal = self._store.open_for_writing()
            cleanup.callback(self._store.release)
            cleanup.enter_context(logs.written_to(self._store.folder / logs.LOG, self._level))
            cleanup.callback(journal.close)
            desk = context.desk()
            cleanup.callback(desk.abandon)
            _tell_of(journal, self._store)
            with log.errors(), self._stop.listening(), self._explained():
                return self._run(context, desk, journal)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to an interrupt or a file error its consequences for the campaign."""
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; finished tasks are kept in {self._store.folder}: run the same again to continue"
            ) from None
        except OSError as error:
            if error.errno in NO_DISK:
                raise no_disk(self._store.folder, str(error)) from error
            self._store.require_own()  # a lost folder may be the cause
            if isinstance(error.filename, str) and Path(error.filename).is_relative_to(self._store.folder):
                raise CampaignError(
                    f"the campaign in {self._store.folder} has stopped: {error}; correct this and run the same again: "
                    "no finished task is lost"
                ) from error
            raise

    def _run(self, context: Workers, desk: Desk, journal: Journal) -> State:
        session = Session(self._campaign, self._store, journal, context, desk)
        state = session.state
        ended_before = state.finished is not None
        if not ended_before:
            with self._display.showing(state, session.settings, self._store.folder) as show:
                show("starting workers, checking engines and structures")
                session.check(show)
                session.propose()
                self._stop.gentle = True
                for _ in session.events():
                    show(context.waiting())
                    if self._stop.requested:
                        self._wind_down(session, show)
                self._stop.gentle = False
        journal.confirm()
        missing = missing_results(self._store, state)
        if missing:
            tell(self._store.folder, missing if ended_before else [], "the results are written again")
            self._write_results(self._store, state, session.orders)
        if state.finished == "failed":
            raise CampaignError(f"the campaign gave up: {state.message}. See psiflow status {self._store.folder}")
        return state

    def _wind_down(self, session: Session, show: Callable[[str], None]) -> None:
        """Wait up to the grace time for tasks about to finish, record them, and stop."""
        deadline = time.monotonic() + self._grace
        session.stop_sending()
        while session.under_way and time.monotonic() < deadline:
            show(f"stopping: up to {self._grace:.0f} s for tasks about to finish; a second Ctrl-C stops at once")
            session.wind_down()
        raise KeyboardInterrupt


def _tell_of(journal: Journal, store: Store) -> None:
    """Warn of a damaged journal, and of a journal whose end may be lost."""
    file = store.journal_file
    if journal.damaged is not None:
        lost = f"its last {journal.lost} events are lost ({file.name}-wal held the latest), " if journal.lost else ""
        warnings.warn(
            f"the journal {file} was damaged: its intact beginning was taken over, {lost}tasks that workers have "
            f"finished since are found again, and the damaged file is kept as {journal.damaged.name}",
            stacklevel=4,
        )
    elif journal.doubt:
        warnings.warn(f"the journal {file} may have lost its last events: {journal.doubt}", stacklevel=4)


class _Stop:
    """Ctrl-C, or the SIGTERM of batch systems: the first stops the driver in good order, the second at once."""

    def __init__(self) -> None:
        self.requested = False
        self.gentle = False
        """Whether the driver looks at `requested` by itself."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals, in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if again or not self.gentle:
            raise KeyboardInterrupt
