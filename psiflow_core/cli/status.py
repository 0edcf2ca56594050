"""`psiflow status`: the state of a campaign, read from its journal, also while a driver is running it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.pools_file import Seen, read_pools
from psiflow_core.learning.driver.request import Recorded, read_campaign
from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.events import Labelled, Opened
from psiflow_core.learning.machine.state import State, TaskFailure
from psiflow_core.report.display import overview
from psiflow_core.report.summary import fate

PERIOD = 1.0
"""Time between two updates of `--watch`. [s]"""

SHOWN = 100
"""How much of a failure's message is shown. [characters]"""


def picture(folder: Path) -> RenderableType:
    """Progress, fates of the candidates, failures with their messages, the driver, and the next step for the user.

    Raises:
        CampaignError: there is no campaign in the folder.
    """
    driver = Store(folder).driver()  # first: a driver that ends before the journal is read was not interrupted
    return _drawn(read_campaign(folder), driver)


def keep_showing(folder: Path, console: Console) -> None:
    """The same, once a second, until the campaign has ended or no driver is running it.

    Raises:
        CampaignError: there is no campaign in the folder.
    """
    campaign = None
    with Live(console=console, auto_refresh=False) as live:
        while True:
            driver = Store(folder).driver()
            campaign = read_campaign(folder) if campaign is None else campaign.up_to_date()
            live.update(_drawn(campaign, driver), refresh=console.is_terminal)
            if driver is None:
                return
            time.sleep(PERIOD)


def _drawn(campaign: Recorded, driver: str | None) -> RenderableType:
    state, folder = campaign.state, campaign.store.folder
    driven = driver is not None or state.finished is not None
    parts = [
        overview(state, campaign.settings, folder, driven=driven, times=label_times(campaign)),
        _fates(state, driven),
    ]
    if state.failures:
        parts.append(_failures(state.failures))
    parts += _supply(state, read_pools(folder) if driver is not None else None)
    return Group(*parts, *_next(campaign, driver))


def label_times(campaign: Recorded) -> list[float]:
    """The times at which the labels of walkers arrived in this session. [s since the epoch]"""
    times: list[float] = []
    for event in campaign.events:
        what = event.what
        if isinstance(what, Opened):
            times.clear()
        elif isinstance(what, Labelled) and campaign.state.candidates[what.candidate].origin == "walker":
            times.append(event.time)
    return times


def _fates(state: State, driven: bool) -> RenderableType:
    table = Table("candidates", "from", "fate", "why", box=box.SIMPLE_HEAD)
    table.columns[0].justify = "right"
    counts = Counter((candidate.origin, *_fate(candidate, state, driven)) for candidate in state.candidates)
    for (origin, became, reason), count in sorted(counts.items()):
        table.add_row(str(count), origin, became, reason)
    return table


def _fate(candidate: Candidate, state: State, driven: bool) -> tuple[str, str]:
    """The fate of a candidate, and the reason."""
    became = fate(candidate, ended=state.finished is not None)
    if became == "not labelled":
        return became, "the campaign ended first"
    if became == "labelling" and not driven:
        return "cut off", "the driver ended first"
    return became, candidate.reason


def _failures(failures: list[TaskFailure]) -> RenderableType:
    table = Table("failures", "task", "reason", "last message", box=box.SIMPLE_HEAD)
    table.columns[0].justify = "right"
    counts = Counter((failure.kind, failure.reason) for failure in failures)
    last = {(failure.kind, failure.reason): failure.told for failure in failures}
    for (kind, reason), count in counts.most_common():
        table.add_row(str(count), kind, reason, _short(last[kind, reason]))
    return table


def _supply(state: State, seen: Seen | None) -> Iterator[Text]:
    """Excluded hosts, tasks that ended with their blocks, and the pools of the running driver."""
    for host, last in state.hosts.excluded.items() if state.finished is None else ():
        yield _line(f"host    {host} is excluded: several tasks in a row failed on it; the last: {_short(last)}")
    if state.interruptions:
        counts = ", ".join(f"{count} × {kind}" for kind, count in state.interruptions.most_common())
        yield _line(f"blocks  ended before their tasks: {counts}; these went on, or were computed again")
    if seen is None:
        return
    for pool in seen.pools:
        yield _line(f"pool    {pool.told} ({seen.age:.0f} s ago)")
        yield from (_line(f"        {_short(words)}") for words in pool.ended)


def _short(message: str) -> str:
    """A message in one line of bounded length."""
    line = " ".join(message.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _next(campaign: Recorded, driver: str | None) -> Iterator[Text]:
    """The running driver, and how to continue."""
    state, folder = campaign.state, campaign.store.folder
    if driver is not None:
        yield _line(f"driver  {driver}; Ctrl-C or SIGTERM stops it, and nothing is lost")
    elif isinstance(campaign.events[-1].what, Opened):
        yield _line("driver  none: the last session had no result: a check refused it, or it was stopped; correct the")
        yield _line("        reported problem (psiflow doctor finds it, too), then run the same campaign again")
    elif state.finished is None:
        yield _line("driver  none: to continue, run the same script or psiflow run again")
    elif state.finished == "failed":
        yield _line("driver  none: remove the cause (an engine, memory, disk space) and run the campaign again: failed")
        yield _line("        tasks are then tried once more; another reference or potential needs another folder")
    else:
        yield _line("driver  none: the campaign is finished; to continue it, run it again with a larger budget")
        yield _line(f"report  {folder / 'report.html'}")
        yield _line(f"model   {folder / 'potential'}")


def _line(text: str) -> Text:
    """A line that is never broken, so that its path can be copied."""
    return Text(text, no_wrap=True, overflow="ignore")
