"""The driver: reads the journal, starts what the plan says, writes down what comes back. It is short."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from psiflow_core.context import Context
from psiflow_core.errors import CampaignError
from psiflow_core.journal import Journal
from psiflow_core.learning.campaign import State
from psiflow_core.learning.damage import tell
from psiflow_core.learning.progress import Progress
from psiflow_core.learning.records import Campaign
from psiflow_core.learning.results import missing_results, write_results
from psiflow_core.learning.session import Session, no_disk
from psiflow_core.store import Store
from psiflow_core.tasks import NO_DISK


class Driver:
    """Runs one campaign in one folder."""

    def __init__(
        self, campaign: Campaign, folder: Path, labels: str | Path | None, progress: bool, grace: float
    ) -> None:
        self._campaign = campaign
        self._store = Store(folder, labels)
        self._progress = Progress(progress)
        self._grace = grace
        self._stop = _Stop()

    def run(self, context: Context) -> State:
        """Go on from where the journal ends, until the campaign does.

        Raises:
            CampaignError: the folder is taken or another campaign's, or too much failed.
            KeyboardInterrupt: Ctrl-C or SIGTERM came; the message says how to go on.
            EngineMissing, OptionError, StructureError: a check on a worker found what cannot work.
        """
        with contextlib.ExitStack() as ending:
            journal = self._store.open_for_writing()
            ending.callback(self._store.release)
            ending.callback(journal.close)
            ending.callback(context.abandon)
            _tell_of(journal, self._store)
            with self._stop.listening(), self._explained():
                return self._run(context, journal)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what an end means for the campaign."""
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; what workers have finished is kept in {self._store.folder}: run the same again to go on"
            ) from None
        except OSError as error:
            if error.errno in NO_DISK:
                raise no_disk(self._store.folder, str(error)) from error
            self._store.require_own()  # it may have failed for that
            if isinstance(error.filename, str) and Path(error.filename).is_relative_to(self._store.folder):
                raise CampaignError(
                    f"the campaign in {self._store.folder} has stopped: {error}; mend that and run the same again: "
                    "nothing that was finished is lost"
                ) from error
            raise

    def _run(self, context: Context, journal: Journal) -> State:
        session = Session(self._campaign, self._store, journal, context)
        state = session.state
        ended_before = state.finished is not None
        if not ended_before:
            with self._progress.showing(state, session.settings, self._store.folder) as show:
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
            write_results(self._store, state, session.dispatch)
        if state.finished == "failed":
            raise CampaignError(f"the campaign gave up: {state.message}. See psiflow status {self._store.folder}")
        return state

    def _wind_down(self, session: Session, show: Callable[[str], None]) -> None:
        """Wait a while for what is about to finish, write it down, and leave."""
        deadline = time.monotonic() + self._grace
        while session.under_way and time.monotonic() < deadline:
            show(f"stopping: up to {self._grace:.0f} s for what is about to finish; once more stops at once")
            session.wind_down()
        raise KeyboardInterrupt


def _tell_of(journal: Journal, store: Store) -> None:
    """Say what has become of the journal, and that its end may be lost where nobody can know."""
    file = store.journal_file
    if journal.damaged is not None:
        lost = f"its last {journal.lost} events are lost ({file.name}-wal held the latest), " if journal.lost else ""
        warnings.warn(
            f"the journal {file} was damaged: its intact beginning was taken over, {lost}what workers have finished "
            f"since is found again, and the damaged file is kept as {journal.damaged.name}",
            stacklevel=4,
        )
    elif journal.doubt:
        warnings.warn(f"whether the journal {file} has lost its end cannot be said: {journal.doubt}", stacklevel=4)


class _Stop:
    """Ctrl-C, or the SIGTERM that batch systems send: asked once, the driver ends in good order; twice, at once."""

    def __init__(self) -> None:
        self.requested = False
        self.gentle = False
        """Whether the driver looks at `requested` by itself."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals, where this is the thread that gets them."""
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
