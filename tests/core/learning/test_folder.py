"""A campaign's folder: the journal, the lock, and paths that survive a move."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from ase.build import molecule

import psiflow_core.learning.driver.folder
from psiflow_core.errors import CampaignError
from psiflow_core.learning.driver import folder as store_module
from psiflow_core.learning.driver import journal as journal_module
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.journal_file import journal_mode
from psiflow_core.structures import digest, from_plain

HOLD = """
import sys, time
from psiflow_core.learning.driver.folder import Store
store = Store(sys.argv[1])
journal = store.open_for_writing()
journal.append("opened", {"number": 1})
print("taken", flush=True)
time.sleep(60)
"""

WRITE = """
import sys
from psiflow_core.learning.driver.journal import Journal
journal = Journal(__import__("pathlib").Path(sys.argv[1]), write=True)
for number in range(10**9):
    journal.append("counted", {"number": number})
    print(number, flush=True)
"""


def mounted(*found: tuple[str, str]) -> list[SimpleNamespace]:
    """Mounted file systems as psutil tells them."""
    return [SimpleNamespace(mountpoint=where, fstype=kind) for where, kind in found]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder lies on a network file system."""
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounted(("/", "nfs4")))


@pytest.fixture(params=["local", "network"])
def anywhere(request: pytest.FixtureRequest) -> None:
    """Folders on a local file system, then on a network's."""
    if request.param == "network":
        request.getfixturevalue("shared")


def mode(file: Path) -> str:
    """How a journal was last written."""
    return {b"\1\1": "TRUNCATE", b"\2\2": "WAL"}[file.read_bytes()[18:20]]


def numbers(file: Path) -> list[int]:
    """What a reader finds."""
    journal = Journal(file)
    found = [event.data["number"] for event in journal.events()]
    journal.close()
    return found


@pytest.mark.usefixtures("anywhere")
def test_events_come_back_in_order_and_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", write=True)
    written = [journal.append("counted", {"number": n, "half": n / 2, "text": "Å"}) for n in range(20)]
    journal.close()
    assert list(Journal(tmp_path / "journal.sqlite").events()) == written
    assert list(Journal(tmp_path / "journal.sqlite").events(after=15)) == written[15:]


@pytest.mark.usefixtures("anywhere")
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


@pytest.mark.parametrize("name", ["run #3", "really?", "100%", "a%20b", "x?mode=rw&y", "ångström"])
def test_a_journal_is_read_whatever_its_folder_is_called(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / name)
    store.open_for_writing().append("counted", {"number": 7})
    for path in (store.journal_file, Path(os.path.relpath(store.journal_file))):
        assert numbers(path) == [7]


@pytest.mark.usefixtures("anywhere")
def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.sqlite", write=True).close()
    with pytest.raises(CampaignError, match="readonly"):
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


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/tmp/c/journal.sqlite", "WAL"),
        ("/home/ada/c/journal.sqlite", "TRUNCATE"),
        ("/homestead/c/journal.sqlite", "WAL"),
        ("/home/ada/local/c/journal.sqlite", "WAL"),
        ("/scratch/c/journal.sqlite", "TRUNCATE"),
        ("/work/c/journal.sqlite", "TRUNCATE"),
        ("/group/c/journal.sqlite", "TRUNCATE"),
        ("/project/c/journal.sqlite", "TRUNCATE"),
        ("/laptop/c/journal.sqlite", "TRUNCATE"),
        ("/windows/c/journal.sqlite", "TRUNCATE"),
    ],
)
def test_only_where_one_host_alone_looks_is_memory_shared(path: str, expected: str) -> None:
    partitions = mounted(
        ("/home/ada/local", "xfs"),
        ("/", "ext4"),
        ("/home", "autofs"),
        ("/home", "nfs4"),
        ("/scratch", "lustre"),
        ("/work", "gpfs"),
        ("/group", "beegfs"),
        ("/project", "fuse.ceph"),
        ("/laptop", "fuse.sshfs"),
        ("/windows", "cifs"),
    )
    assert journal_mode(Path(path), partitions) == expected
    assert journal_mode(Path(path), []) == "WAL"


def test_a_link_to_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    partitions = mounted(("/", "ext4"), (str(tmp_path / "far"), "nfs"))
    assert journal_mode(tmp_path / "near" / "journal.sqlite", partitions) == "TRUNCATE"


@pytest.mark.parametrize("killed", [False, True])
def test_a_journal_goes_on_on_another_file_system(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "0" / "journal.sqlite"
    file.parent.mkdir()
    for number, kind in enumerate(["ext4", "nfs", "xfs", "lustre"]):
        monkeypatch.setattr(psutil, "disk_partitions", lambda all, kind=kind: mounted(("/", kind)))
        writer = Journal(file, write=True)
        assert [event.data["number"] for event in writer.events()] == list(range(number))
        writer.append("counted", {"number": number})
        assert numbers(file) == list(range(number + 1))
        if not killed:
            writer.close()
        assert mode(file) == ("WAL" if kind in ("ext4", "xfs") else "TRUNCATE")
        file = Path(shutil.copytree(file.parent, tmp_path / str(number + 1))) / file.name
        writer.close()
        assert numbers(file) == list(range(number + 1))


@pytest.mark.usefixtures("shared")
def test_readers_and_writer_on_a_network_file_system_wait_for_each_other(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    Journal(file, write=True).append("counted", {"number": 0})
    for hold, wait in (
        ("BEGIN", lambda: Journal(file, write=True).append("counted", {"number": 1})),
        ("BEGIN EXCLUSIVE", lambda: numbers(file)),
    ):
        assert waits(file, hold, wait)
    assert numbers(file) == [0, 1]


def waits(file: Path, hold: str, work: Callable[[], object]) -> bool:
    """Whether a piece of work is done as soon as somebody else lets go of the journal, and not before."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute(hold)
    other.execute("SELECT count(*) FROM events").fetchall()
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    worker = threading.Thread(target=run)
    worker.start()
    held_up = not done.wait(0.3)
    other.execute("COMMIT")
    other.close()
    worker.join()
    return held_up and done.is_set()


@pytest.mark.usefixtures("shared")
def test_an_event_that_a_kill_cut_short_is_undone_by_the_next_driver_and_by_no_reader(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    Journal(file, write=True).append("counted", {"number": 0})
    dying = sqlite3.connect(file, isolation_level=None)
    dying.execute("PRAGMA cache_size=1")  # so that pages reach the file before the commit
    dying.execute("BEGIN")
    dying.executemany("INSERT INTO events (time, kind, data, seal) VALUES (0, 'counted', ?, '')", [("x" * 5000,)] * 20)
    left = Path(shutil.copytree(tmp_path, tmp_path.with_name("left"))) / file.name
    dying.close()
    before = left.read_bytes()
    with pytest.raises(CampaignError, match="was killed while it wrote an event; run the campaign again"):
        numbers(left)
    assert left.read_bytes() == before
    Journal(left, write=True).close()
    assert numbers(left) == [0]


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


def test_an_append_knows_that_somebody_else_has_written(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    first = Journal(file, write=True)
    first.append("counted", {"number": 0})
    second = Journal(file, write=True)
    second.append("counted", {"number": 1})
    for late in (lambda: first.append("counted", {"number": 2}), first.confirm):
        with pytest.raises(CampaignError, match=r"this driver has lost the campaign in .*: another driver has written"):
            late()
    second.append("counted", {"number": 2})
    second.confirm()
    first.close()
    second.close()
    again = Journal(file, write=True)
    assert again.damaged is None
    assert [event.data["number"] for event in again.events()] == [0, 1, 2]


def test_nobody_else_writes_between_the_events_of_a_block(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path / "journal.sqlite", write=True) for _ in range(2))
    second.append("counted", {"number": 0})

    def late() -> None:
        with first.together():
            first.append("counted", {"number": 1})

    with pytest.raises(CampaignError, match="has lost the campaign"):
        late()
    assert numbers(tmp_path / "journal.sqlite") == [0]


@pytest.mark.parametrize("gone", ["removed", "moved", "replaced"])
def test_a_driver_whose_journal_is_gone_stops_in_one_line(gone: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    journal = store.open_for_writing()
    journal.append("counted", {"number": 0})
    if gone == "removed":
        shutil.rmtree(store.folder)
    elif gone == "moved":
        store.folder.rename(tmp_path / "elsewhere")
    else:
        store.journal_file.rename(tmp_path / "journal.sqlite")
        store.journal_file.touch()
    with pytest.raises(CampaignError, match=r"this driver has lost the campaign in .* It has stopped") as told:
        journal.append("counted", {"number": 1})
    assert "\n" not in str(told.value)
    journal.close()
    store.release()


def test_a_lock_that_was_removed_is_no_way_for_a_second_driver_and_is_put_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    journal = store.open_for_writing()
    store._lock_file.unlink()
    with pytest.raises(CampaignError, match="is being run by another process"):
        Store(tmp_path / "c").open_for_writing()
    journal.append("counted", {"number": 0})
    assert store.driver() == f"process {os.getpid()} on {socket.gethostname()}"
    journal.close()
    store.release()
    assert store.driver() is None


def test_where_no_folder_can_be_locked_a_driver_that_has_lost_its_lock_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_locks", lambda folder: None)
    first, second = Store(tmp_path / "c"), Store(tmp_path / "c")
    journal = first.open_for_writing()
    first._lock_file.unlink()
    other = second.open_for_writing()
    with pytest.raises(CampaignError, match=r"its .* was removed or replaced"):
        journal.append("counted", {"number": 0})
    journal.close()
    first.release()
    assert second.driver() == f"process {os.getpid()} on {socket.gethostname()}"
    other.append("counted", {"number": 1})
    assert numbers(second.journal_file) == [1]
    other.close()
    second.release()


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_set_changes_no_span_of_a_session(
    hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal.sqlite", write=True)
    before = [journal.append("counted", {"number": n}) for n in range(2)]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    after = journal.append("counted", {"number": 2})
    assert before[-1].time <= after.time < before[-1].time + 1800
    assert 0 <= journal_module.since(after.time, journal.clock) < 1800
    assert journal_module.since(after.time, None) >= 0
    journal.close()
    again = Journal(tmp_path / "journal.sqlite", write=True)
    assert again.append("counted", {"number": 3}).time >= after.time


def test_a_released_folder_can_be_taken_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    store.open_for_writing().close()
    store.release()
    Store(tmp_path / "c").open_for_writing().close()


def test_a_fork_of_the_driver_does_not_keep_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    store.open_for_writing().close()
    child = os.fork()  # it has the descriptors of the lock, and outlives the driver's use of the folder
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        store.release()
        assert store.driver() is None
        Store(tmp_path / "c").open_for_writing().close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_descriptor_that_outlives_the_driver_does_not_keep_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "c")
    store.open_for_writing().close()
    assert store._lock is not None
    inherited = os.dup(store._lock.fileno())
    store.release()
    Store(tmp_path / "c").open_for_writing().close()
    os.close(inherited)


def test_who_looks_for_the_driver_does_not_keep_one_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psiflow_core.learning.driver.folder, "TAKING", 15.0)  # a loaded machine may be late to let go
    store = Store(tmp_path / "c")
    store.open_for_writing().close()
    store.release()
    with (tmp_path / "c" / "driver.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.3, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        store.open_for_writing().close()
    assert store.driver() == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_folder_whose_files_cannot_be_locked_is_not_said_to_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(CampaignError, match=r"cannot be locked: No locks available; choose another folder"):
        Store(tmp_path / "c").open_for_writing()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CampaignError, match=r"cannot write into the campaign folder .*file/c.*choose another folder"):
        Store(tmp_path / "file" / "c").open_for_writing()


def test_a_file_that_is_no_journal_is_named_and_put_aside_by_a_driver(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    file = tmp_path / "c" / "journal.sqlite"
    file.write_bytes(b"not a database, and long enough to be sure of it" * 50)
    with pytest.raises(CampaignError, match=r"the journal .*journal\.sqlite cannot be read"):
        list(Journal(file).events())
    journal = Store(tmp_path / "c").open_for_writing()
    assert journal.damaged is not None
    assert journal.damaged.read_bytes().startswith(b"not a database")
    assert not list(journal.events())


def test_a_journal_that_cannot_be_opened_leaves_no_lock_behind(tmp_path: Path) -> None:
    (tmp_path / "c" / "journal.sqlite").mkdir(parents=True)
    store = Store(tmp_path / "c")
    for _ in range(2):
        with pytest.raises(CampaignError, match=r"cannot open the journal .*journal\.sqlite"):
            store.open_for_writing()
        assert store.driver() is None


def written(file: Path, events: int) -> Path:
    journal = Journal(file, write=True)
    for number in range(events):
        journal.append("counted", {"number": number, "text": "x" * 500})
    journal.close()
    return file


def test_of_a_torn_journal_the_intact_beginning_is_taken_over(tmp_path: Path) -> None:
    file = written(tmp_path / "journal.sqlite", 200)
    os.truncate(file, file.stat().st_size // 2 // 4096 * 4096)
    journal = Journal(file, write=True)
    assert journal.damaged is not None
    kept = [event.data["number"] for event in journal.events()]
    assert kept == list(range(len(kept)))
    journal.append("counted", {"number": len(kept)})
    journal.close()
    again = Journal(file, write=True)
    assert again.damaged is None
    assert [event.data["number"] for event in again.events()] == [*kept, len(kept)]


def test_an_event_that_was_changed_and_all_after_it_are_not_believed(tmp_path: Path) -> None:
    file = written(tmp_path / "journal.sqlite", 20)
    connection = sqlite3.connect(file)
    connection.execute("UPDATE events SET data = replace(data, 'x', 'y') WHERE number = 11")
    connection.commit()
    connection.close()
    journal = Journal(file, write=True)
    assert [event.data["number"] for event in journal.events()] == list(range(10))
    assert journal.damaged is not None


def test_events_that_are_written_together_are_all_there_also_when_the_block_raises(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", write=True)

    def interrupted() -> None:
        with journal.together():
            journal.append("counted", {"number": 0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    journal.append("counted", {"number": 1})
    assert numbers(tmp_path / "journal.sqlite") == [0, 1]


def test_a_full_disk_is_told_and_costs_no_event(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from psiflow_core.learning.driver.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), write=True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for number in range(10**6):\n"
        "    journal.append('counted', {'number': number, 'text': 'x' * 1000})\n"
        "    print(number, flush=True)\n"
    )
    file = tmp_path / "journal.sqlite"
    ended = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False)
    assert "CampaignError: cannot write into the journal" in ended.stderr
    told = [int(word) for word in ended.stdout.split()]
    journal = Journal(file, write=True)
    assert journal.damaged is None
    assert [event.data["number"] for event in journal.events()] == told


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


ELSEWHERE = """
import socket, sys, time
socket.gethostname = lambda: "another-host"
from psiflow_core.learning.driver.folder import Store
store = Store(sys.argv[1])
store.open_for_writing()
import fcntl
fcntl.flock(store._lock, fcntl.LOCK_UN)  # as where locks end at the host
print("here", flush=True)
time.sleep(60)
"""


def test_a_driver_on_another_host_is_noticed_where_locks_do_not_reach_as_long_as_it_lives(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(tmp_path / "c")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "here\n"
    with pytest.raises(CampaignError, match=r"being run by process \d+ on another-host"):
        Store(tmp_path / "c").open_for_writing()
    other.kill()
    other.wait()
    store = Store(tmp_path / "c")
    store.open_for_writing().close()
    store.release()


def test_a_journal_waits_for_its_disk_at_most_a_hundredth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, waits = [0.0], []

    def disk(path: Path) -> None:
        waits.append(path.name)
        clock[0] += 0.1

    monkeypatch.setattr(journal_module, "make_durable", disk)
    monkeypatch.setattr(journal_module, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    journal = Journal(tmp_path / "journal.sqlite", write=True)
    label = tmp_path / "label.json"
    journal.append("opened", {})
    assert waits == ["journal.sqlite-wal"]  # an event after a long silence is on the disk at once
    journal.relies_on(label)
    for number in range(99):
        clock[0] += 0.1
        journal.append("started", {"number": number})
    assert len(waits) == 1
    clock[0] += 0.2
    journal.append("labelled", {})
    assert waits[1:] == ["label.json", "journal.sqlite-wal"]  # what an event speaks of is there before it
    journal.append("finished", {})
    journal.close()
    assert waits[3:] == ["journal.sqlite-wal"]


def test_a_journal_that_lost_its_last_moment_is_whole(tmp_path: Path) -> None:
    """A loss of power takes the end of SQLite's log away, at any byte of it."""
    source = tmp_path / "journal.sqlite"
    journal = Journal(source, write=True)
    for number in range(30):
        journal.append("started", {"number": number})
    log = source.with_name("journal.sqlite-wal").read_bytes()
    for size in range(0, len(log), len(log) // 20):
        folder = tmp_path / str(size)
        folder.mkdir()
        shutil.copy(source, folder)
        (folder / "journal.sqlite-wal").write_bytes(log[:size])
        found = Journal(folder / "journal.sqlite", write=True)
        assert found.damaged is None
        numbers = [event.data["number"] for event in found.events()]
        assert numbers == list(range(len(numbers)))
        found.close()
    journal.close()
