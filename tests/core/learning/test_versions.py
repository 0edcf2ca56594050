"""Journals of other versions of psiflow: one clear error, or a default that is told."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from psiflow_toys import campaigns

import psiflow_core as psiflow
from psiflow_core.cli import main
from psiflow_core.errors import CampaignError
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.journal_file import FORMAT
from psiflow_core.structures import Plain


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign of two labels. To be copied."""
    folder = tmp_path_factory.mktemp("left") / "c"
    run(folder)
    return folder


@pytest.fixture
def folder(left: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(left, tmp_path / "c"))


def run(folder: Path) -> None:
    asked = campaigns.learning(2, bootstrap=psiflow.Bootstrap(structures=2), schedule="sequential")
    with psiflow.Context("threads", folder=folder.parent / "pools") as context:
        campaigns.run(folder, context, asked)


def rewritten(folder: Path, change: Callable[[str, Plain], tuple[str, Plain]]) -> None:
    """The journal as another version would have written it: every seal is right."""
    events = list(Journal(folder / "journal.sqlite").events())
    for part in folder.glob("journal.*"):
        part.unlink()
    journal = Journal(folder / "journal.sqlite", write=True)
    for event in events:
        journal.append(*change(event.kind, event.data))
    journal.close()


LOOKING = ("status", "report", "failures")


def said(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        main([str(word) for word in command])
    return capsys.readouterr().err


def every_way_says(pattern: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in LOOKING:
        line = said(capsys, command, folder)
        assert pattern in line
        assert line.count("\n") == 1
    with pytest.raises(CampaignError) as refused:
        run(folder)
    assert pattern in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_journal_of_a_newer_psiflow_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = sqlite3.connect(folder / "journal.sqlite")
    journal.execute(f"PRAGMA user_version={FORMAT + 1}")
    journal.close()
    content = (folder / "journal.sqlite").read_bytes()
    every_way_says(f"has format {FORMAT + 1}, and this psiflow reads formats up to {FORMAT}", folder, capsys)
    assert (folder / "journal.sqlite").read_bytes() == content


def test_an_event_of_an_unknown_kind_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewritten(folder, lambda kind, data: ("dreamt" if kind == "trained" else kind, data))
    every_way_says("is of the kind 'dreamt', which this psiflow does not know", folder, capsys)


def test_an_event_that_lacks_something_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def without_member(kind: str, data: Plain) -> tuple[str, Plain]:
        return kind, {name: value for name, value in data.items() if name != "member"}

    rewritten(folder, without_member)
    every_way_says("'trained', is not of this psiflow's format (member: Field required)", folder, capsys)


@pytest.mark.parametrize("name", ["homes", "slots", "versions", "context", "configuration"])
def test_a_session_that_lacks_something_is_named(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewritten(folder, lambda kind, data: (kind, {key: value for key, value in data.items() if key != name}))
    every_way_says(f"'opened', is not of this psiflow's format ({name}: Field required)", folder, capsys)


def reconfigured(folder: Path, change: Callable[[Plain], object]) -> None:
    """A campaign that was asked something else when it began."""

    def opened(kind: str, data: Plain) -> tuple[str, Plain]:
        copy = json.loads(json.dumps(data))
        if kind == "opened":
            change(copy["configuration"])
        return kind, copy

    rewritten(folder, opened)


def without(*path: str) -> Callable[[Plain], object]:
    def change(configuration: Plain) -> None:
        for name in path[:-1]:
            configuration = configuration[name]
        del configuration[path[-1]]

    return change


@pytest.mark.parametrize(
    ("path", "default"),
    [
        (("seed",), "seed=0"),
        (("walking", "segment", "check_every"), None),
        (("training", "growth"), "training.growth="),
        (("reference", "delay"), "reference.delay=0.0"),
        (("potential", "basis"), None),
    ],
)
def test_a_campaign_that_began_without_a_setting_has_its_default_and_goes_on(
    path: tuple[str, ...], default: str | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reconfigured(folder, without(*path))
    if default is None:  # the request asks for something else than the default
        with pytest.raises(CampaignError, match=rf"{'.'.join(path)} was .* and is now"):
            run(folder)
        return
    with pytest.warns(UserWarning, match=f"is older than these settings, and has their defaults: .*{default}"):
        run(folder)
    for command in LOOKING:
        line = said(capsys, command, folder)
        assert path[0] in ("reference", "potential") or default in line
        assert "error" not in line


@pytest.mark.parametrize("path", [("telepathy",), ("training", "telepathy")])
def test_a_setting_that_this_psiflow_does_not_know_is_named(
    path: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(configuration: Plain) -> None:
        (configuration if len(path) == 1 else configuration[path[0]])["telepathy"] = 3

    reconfigured(folder, change)
    every_way_says(f"unknown option '{path[-1]}'", folder, capsys)
