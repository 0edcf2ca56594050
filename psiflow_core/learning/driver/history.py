"""The journal of a campaign and the state that follows from it, kept in agreement."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.log import Log
from psiflow_core.learning.driver.request import read_events, refuse_other
from psiflow_core.learning.machine.events import Event, Happening, Opened, parsed
from psiflow_core.learning.machine.fold import apply, fold
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.structures import Plain


class History:
    """The past of a campaign: its journal, and the state after it.

    Args:
        configuration: the request of this session.
        folder: the campaign's folder, for messages.

    Raises:
        CampaignError: another campaign or another version of psiflow wrote the journal.
    """

    def __init__(self, journal: Journal, settings: Settings, configuration: Plain, folder: Path) -> None:
        self._journal = journal
        self._settings = settings
        before = self._request_before()
        if before is not None:
            refuse_other(before, configuration, folder)
        self.state: State = fold(read_events(journal), settings)
        self.log = Log(self.state, settings)

    def append(self, what: Happening) -> None:
        """Record an event, apply it to the state, and log it."""
        line = self._journal.append(what.kind, what.to_plain())
        event = Event(line.number, line.time, what)
        apply(self.state, event, self._settings)
        self.log.event(event)

    def _request_before(self) -> Plain | None:
        """The configuration of the last session; None if no session has passed its checks."""
        opened, others = None, 0
        for line in self._journal.events():
            if line.kind == Opened.kind:
                opened = line
            else:
                others += 1
        if opened is None or not others:
            return None
        what = parsed(opened.number, opened.time, opened.kind, opened.text).what
        return cast(Opened, what).configuration
