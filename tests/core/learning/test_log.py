"""`psiflow.log` says what a driver decides and why, and never stands in the way."""

from __future__ import annotations

import logging
import re
import shutil
import threading
from pathlib import Path

import pytest
from psiflow_toys import campaigns

import psiflow_core as psiflow
from psiflow_core.errors import CampaignError, OptionError
from psiflow_core.learning.driver import log
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import KINDS
from psiflow_core.processes import logs

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} (DEBUG|INFO|WARNING|ERROR) +\S")
"""Date and time with their offset to UTC, the level, and what is said."""


def said(folder: Path) -> list[str]:
    return (folder / "psiflow.log").read_text().splitlines()


def files_of_the_log() -> list[logging.FileHandler]:
    handlers = [one for one in logging.getLogger("psiflow").handlers if isinstance(one, logging.FileHandler)]
    return [one for one in handlers if one.baseFilename.endswith("psiflow.log")]


def run(folder: Path, labels: int = 6, **settings: object) -> None:
    with psiflow.Context("threads", folder=folder.parent / "pools") as context:
        campaigns.run(folder, context, campaigns.learning(labels, **settings))


def test_every_kind_of_event_has_its_words() -> None:
    assert set(KINDS.values()) <= set(vars(log.Log)["_describe"].dispatcher.registry)


def test_a_log_tells_what_was_started_what_failed_and_why_it_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "c"
    failing = psiflow.reference("toy", fail_fraction=0.2)
    run(folder, reference=failing, stopping=psiflow.Stopping(tolerated_failures=1.0))
    lines = said(folder)
    assert all(LINE.match(line) for line in lines)
    state = read_campaign(folder).state
    for task, attempts in state.attempts.items():
        assert sum(f"{task} started" in line for line in lines) == attempts
    failed = [line for line in lines if "unconverged" in line and "given up" in line]
    assert len(failed) == len(state.failures) > 0
    for generation in state.generations:
        assert any(f"generation {generation.number} is due: " in line for line in lines)
    resets = sum(walker.resets.total() for walker in state.walkers)
    assert sum("starts over: " in line for line in lines) == resets
    assert "the budget of labels is spent" in lines[-1]
    shown = capfd.readouterr()
    assert not re.search(r"started|given up|is due", shown.out + shown.err), "the terminal is left in peace"


def test_sessions_are_appended_and_a_campaign_that_gives_up_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(CampaignError, match="gave up"):
        run(folder, reference=psiflow.reference("toy", fail_fraction=1.0))
    first = said(folder)
    assert any(" ERROR " in line and "the campaign has ended (failed)" in line for line in first)
    with pytest.raises(CampaignError, match="gave up"):
        run(folder, reference=psiflow.reference("toy", fail_fraction=1.0))
    assert said(folder)[: len(first)] == first
    assert any("session 2" in line for line in said(folder)[len(first) :])


def test_the_level_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for level, least in (("debug", "moved"), ("info", "started"), ("warning", "given up")):
        folder = tmp_path / level
        monkeypatch.setenv("PSIFLOW_LOG", level)
        failing = psiflow.reference("toy", fail_fraction=0.2)
        run(folder, reference=failing, stopping=psiflow.Stopping(tolerated_failures=1.0))
        assert any(least in line for line in said(folder))
    assert not any(" INFO " in line for line in said(tmp_path / "warning"))


def test_an_unknown_level_is_refused_before_anything_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSIFLOW_LOG", "loud")
    with pytest.raises(OptionError, match=r"PSIFLOW_LOG='loud'.*debug, info, warning, error"):
        run(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_what_an_engine_says_is_one_line_of_bounded_length(tmp_path: Path) -> None:
    with logs.written_to(tmp_path / "psiflow.log", logging.INFO):
        log.logger.warning("%s failed: %s", "label-00000", "SCF\n\x1b[31mdid not converge\n" * 1000)
    (line,) = said(tmp_path)
    assert len(line) <= logs.LIMIT
    assert "\x1b" not in line


def test_a_full_disk_and_a_removed_folder_stop_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    with logs.written_to(folder / "psiflow.log", logging.INFO):
        (handler,) = files_of_the_log()
        handler.stream.close()
        handler.stream = open("/dev/full", "w")  # noqa: SIM115 - the handler closes it
        log.logger.info("this line does not fit")
        shutil.rmtree(folder)
        log.logger.info("nor does this")
    assert capfd.readouterr() == ("", "")
    assert files_of_the_log() == []


def test_campaigns_of_one_process_have_each_its_own_log(tmp_path: Path) -> None:
    threads = [threading.Thread(target=run, args=(tmp_path / name / "c",)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("one", "two"):
        folder = tmp_path / name / "c"
        assert sum("session 1" in line for line in said(folder)) == 1
        tasks = read_campaign(folder).state.attempts
        assert sum(" started" in line for line in said(folder)) == sum(tasks.values())
