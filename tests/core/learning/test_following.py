"""A campaign that is read again while it runs: the later events alone are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from psiflow_toys.campaigns import learning, run

import psiflow_core as psiflow
from psiflow_core.learning.driver import request
from psiflow_core.learning.driver.journal import Journal, Line
from psiflow_core.learning.driver.request import Recorded, read_campaign


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign") / "c"
    with psiflow.Context("threads") as context:
        run(folder, context, learning(labels=6))
    return folder


def lines(folder: Path) -> list[Line]:
    journal = Journal(folder / "journal.sqlite")
    found = list(journal.events())
    journal.close()
    return found


def write(folder: Path, events: list[Line]) -> None:
    journal = Journal(folder / "journal.sqlite", write=True)
    for event in events:
        journal.append(event.kind, event.data)
    journal.close()


@pytest.fixture
def growing(finished: Path, tmp_path: Path) -> tuple[Path, list[Line]]:
    """A copy of the campaign with half of its events, and the other half."""
    folder = tmp_path / "c"
    shutil.copytree(finished, folder)
    known = lines(folder)
    for file in folder.glob("journal*"):
        file.unlink()
    half = len(known) // 2
    write(folder, known[:half])
    return folder, known[half:]


def same(one: Recorded, other: Recorded) -> bool:
    return one.events == other.events and one.state == other.state and one.settings == other.settings


def test_the_events_since_then_are_added(growing: tuple[Path, list[Line]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rest = growing
    campaign = read_campaign(folder)
    write(folder, rest)
    whole = read_campaign(folder)
    monkeypatch.setattr(request, "read_campaign", None)  # it would read all of them
    assert not same(campaign, whole)
    for _ in range(2):
        campaign = campaign.up_to_date()
        assert same(campaign, whole)


def test_a_session_that_has_begun_or_another_journal_is_read_from_its_beginning(
    growing: tuple[Path, list[Line]],
) -> None:
    folder, rest = growing
    campaign = read_campaign(folder)
    first = lines(folder)[0]
    write(folder, [*rest, first])
    campaign = campaign.up_to_date()
    assert len(campaign.state.opened) == 2
    assert same(campaign, read_campaign(folder))
    for file in folder.glob("journal*"):
        file.unlink()
    write(folder, [first])
    assert len(campaign.up_to_date().events) == 1
