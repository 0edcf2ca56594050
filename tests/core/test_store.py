"""A campaign's folder: the journal, the lock, and paths that survive a move."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import molecule

from psiflow_core.errors import CampaignError
from psiflow_core.store import Journal, Store
from psiflow_core.structures import digest, from_plain

HOLD = """
import sys, time
from psiflow_core.store import Store
store = Store(sys.argv[1])
journal = store.open_for_writing()
journal.append("opened", {"number": 1})
print("taken", flush=True)
time.sleep(60)
"""

WRITE = """
import sys
from psiflow_core.store import Journal
journal = Journal(__import__("pathlib").Path(sys.argv[1]), write=True)
for number in range(10**9):
    journal.append("counted", {"number": number})
    print(number, flush=True)
"""


def test_events_come_back_in_order_and_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", write=True)
    written = [journal.append("counted", {"number": n, "half": n / 2, "text": "Å"}) for n in range(20)]
    journal.close()
    assert list(Journal(tmp_path / "journal.sqlite").events()) == written
    assert list(Journal(tmp_path / "journal.sqlite").events(after=15)) == written[15:]


def test_a_reader_looks_while_the_driver_writes(tmp_path: Path) -> None:
    writer = Journal(tmp_path / "journal.sqlite", write=True)
    reader = Journal(tmp_path / "journal.sqlite")
    for number in range(5):
        writer.append("counted", {"number": number})
        assert [event.data["number"] for event in reader.events()] == list(range(number + 1))
    half_read = reader.events()
    next(half_read)
    writer.append("counted", {"number": 5})  # an open reader does not hold the writer up
    writer.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.sqlite", write=True).close()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        Journal(tmp_path / "journal.sqlite").append("counted", {})


def test_what_was_appended_survives_the_kill_of_its_writer(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(file)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(30)]
    writer.kill()
    told += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    found = [event.data["number"] for event in Journal(file).events()]
    assert found[: len(told)] == told
    assert len(found) <= len(told) + 1


def test_a_folder_has_one_driver_and_the_second_is_told_which(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "c")], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "taken\n"
    try:
        with pytest.raises(CampaignError, match=f"is being run by process {owner.pid} on .*; wait for it or stop it"):
            Store(tmp_path / "c").open_for_writing()
        assert [event.kind for event in Journal(tmp_path / "c" / "journal.sqlite").events()] == ["opened"]
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    journal = Store(tmp_path / "c").open_for_writing()  # a killed driver holds nothing
    assert [event.kind for event in journal.events()] == ["opened"]


def test_a_released_folder_can_be_taken_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    store.open_for_writing().close()
    store.release()
    Store(tmp_path / "c").open_for_writing().close()


def test_a_fork_of_the_driver_does_not_keep_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    store.open_for_writing().close()
    child = multiprocessing.get_context("spawn").Process(target=int)
    child.start()
    store.release()
    Store(tmp_path / "c").open_for_writing().close()
    child.join()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CampaignError, match=r"cannot write into the campaign folder .*file/c.*choose another folder"):
        Store(tmp_path / "file" / "c").open_for_writing()


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "journal.sqlite").write_bytes(b"not a database, and long enough to be sure of it" * 50)
    with pytest.raises(CampaignError, match=r"journal\.sqlite"):
        Store(tmp_path / "c").open_for_writing()
    with pytest.raises(CampaignError, match=r"the journal .*journal\.sqlite cannot be read"):
        list(Journal(tmp_path / "c" / "journal.sqlite").events())


def test_a_torn_journal_is_named(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    journal = Journal(file, write=True)
    for _ in range(200):
        journal.append("counted", {"text": "x" * 500})
    journal.close()
    os.truncate(file, 3 * 4096)
    with pytest.raises(CampaignError, match=r"journal\.sqlite cannot be read"):
        list(Journal(file).events())


def test_a_journal_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"cannot open the journal .*journal\.sqlite"):
        Journal(tmp_path / "journal.sqlite")


def test_a_moved_folder_finds_its_files(tmp_path: Path) -> None:
    old = Store(tmp_path / "old")
    old.open_for_writing().close()
    old.release()
    structure = molecule("H2O")
    old.put_structure(structure)
    inside = old.relative(str(old.labels / "ab" / "abc.json"))
    outside = old.relative("/elsewhere/abc.json")
    shutil.move(tmp_path / "old", tmp_path / "new")
    new = Store(tmp_path / "new")
    assert inside == "labels/ab/abc.json"
    assert new.absolute(inside) == tmp_path / "new" / "labels" / "ab" / "abc.json"
    assert new.absolute(outside) == Path("/elsewhere/abc.json")
    assert digest(from_plain(new.structure(digest(structure))["structure"])) == digest(structure)


def test_relative_and_absolute_are_inverse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("c", labels="shared")
    assert store.folder == tmp_path / "c"
    for path in (store.models / "m.json", store.labels / "ab.json"):
        assert store.absolute(store.relative(str(path))) == path
