"""`psiflow status`: where a campaign stands, read from its journal beside a driver that may be at work."""

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

from psiflow_core.learning.campaign import Candidate, Failure, State
from psiflow_core.learning.progress import overview
from psiflow_core.learning.records import Recorded, read_campaign
from psiflow_core.report.summary import fate
from psiflow_core.store import Store

PERIOD = 1.0
"""Seconds between two looks of `--watch`."""

SHOWN = 100
"""Characters of a failure's message."""


def picture(folder: Path) -> RenderableType:
    """Progress, fates of the candidates, failures with their messages, the driver, and how to go on.

    Raises:
        CampaignError: there is no campaign in the folder.
    """
    driver = Store(folder).driver()  # first: one that ends in between has not been interrupted
    return _drawn(read_campaign(folder), driver)


def watch(folder: Path, console: Console) -> None:
    """The same, once a second, until the campaign has ended or no driver is at work.

    Raises:
        CampaignError: there is no campaign in the folder.
    """
    with Live(console=console, auto_refresh=False) as live:
        while True:
            driver = Store(folder).driver()
            live.update(_drawn(read_campaign(folder), driver), refresh=console.is_terminal)
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
    return Group(*parts, *_next(campaign, driver))


def label_times(campaign: Recorded) -> list[float]:
    """When the labels of walkers came in this session. [s since the epoch]"""
    times: list[float] = []
    for event in campaign.events:
        if event.kind == "opened":
            times.clear()
        elif event.kind == "labelled" and campaign.state.candidates[event.data["candidate"]].origin == "walker":
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
    """What became of a candidate, and why."""
    became = fate(candidate, ended=state.finished is not None)
    if became == "not labelled":
        return became, "the campaign ended first"
    if became == "labelling" and not driven:
        return "cut off", "the driver ended first"
    return became, candidate.reason


def _failures(failures: list[Failure]) -> RenderableType:
    table = Table("failures", "task", "reason", "the last one said", box=box.SIMPLE_HEAD)
    table.columns[0].justify = "right"
    counts = Counter((failure.kind, failure.reason) for failure in failures)
    last = {(failure.kind, failure.reason): failure.told for failure in failures}
    for (kind, reason), count in counts.most_common():
        message = " ".join(last[kind, reason].split())
        table.add_row(str(count), kind, reason, message if len(message) <= SHOWN else f"{message[: SHOWN - 1]}…")
    return table


def _next(campaign: Recorded, driver: str | None) -> Iterator[Text]:
    """Who is at work, and how to go on."""
    state, folder = campaign.state, campaign.store.folder
    if driver is not None:
        yield _line(f"driver  {driver}; Ctrl-C or SIGTERM stops it, and nothing is lost")
    elif campaign.events[-1].kind == "opened":
        yield _line("driver  none: the last session ended before anything came of it, refused by a check or stopped;")
        yield _line("        mend what it said (psiflow doctor looks for it too), then run the same campaign again")
    elif state.finished is None:
        yield _line("driver  none: run the same script, or psiflow run, again, and it goes on from here")
    elif state.finished == "failed":
        yield _line("driver  none: mend the cause (an engine, memory, disk space) and run the campaign again:")
        yield _line("        what failed is then tried once more; another reference or potential needs another folder")
    else:
        yield _line("driver  none: the campaign is finished; run it again with a larger budget to go on")
        yield _line(f"report  {folder / 'report.html'}")
        yield _line(f"model   {folder / 'potential'}")


def _line(text: str) -> Text:
    """A line that is never broken, so that the path in it can be copied."""
    return Text(text, no_wrap=True, overflow="ignore")
