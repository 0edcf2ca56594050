"""What several processes share has one owner at a time: labels under way, and a campaign's folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ase.build import molecule

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.perform import perform
from psiflow_core.execution.tasks.request import Grant
from psiflow_core.labels.store import claim_file, has_label, label_file
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.processes import claims
from psiflow_core.processes.claims import Owner, Watch, claimed, holder

DRIVER = """
import sys
import psiflow_core as psiflow
from psiflow_core.learning.driver import folder as campaign_folder
from psiflow_toys.campaigns import learning, water

folder, labels, log, delay, locks = sys.argv[1:]
if locks == "unlockable":
    campaign_folder._locks = lambda folder: None  # as on a network's file system
if __name__ == "__main__":
    parameters = {"log": log, "delay": float(delay)}
    reference = psiflow.reference("ase", calculator="psiflow_toys.counted:Counted", parameters=parameters)
    bootstrap = psiflow.Bootstrap(structures=8)
    asked = learning(8, reference=reference, bootstrap=bootstrap, walkers=1, committee=1)
    sys.stdin.readline()
    with psiflow.Context(psiflow.executor("local", workers=2)) as context:
        asked.run(start=water(), folder=folder, context=context, labels=labels or None)
"""


@contextlib.contextmanager
def driver(
    folder: Path, labels: Path | str, log: Path, delay: float = 0.3, locks: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a campaign of eight labels and two isolated atoms, once it is told to."""
    script = folder.with_suffix(".py")
    script.write_text(DRIVER)
    words = [sys.executable, str(script), str(folder), str(labels), str(log), str(delay), locks]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def computed(log: Path) -> Counter[str]:
    """How often each structure was computed."""
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(one["structure"] for one in map(json.loads, lines) if one["what"] == "begun")


def wait_for(what: str, log: Path, number: int = 1) -> None:
    deadline = time.monotonic() + 600
    while computed(log).total() < number:
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_two_campaigns_that_share_a_store_compute_each_label_once(tmp_path: Path) -> None:
    log, shared = tmp_path / "log", tmp_path / "labels"
    with driver(tmp_path / "one", shared, log) as one, driver(tmp_path / "two", shared, log) as two:
        go(one), go(two)
        said = [process.communicate(timeout=600)[1] for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], said
    assert len(computed(log)) == 10
    assert computed(log).total() == 10
    assert not list(shared.rglob("*.claim"))
    for folder in ("one", "two"):
        assert read_campaign(tmp_path / folder).state.count("labelled") == 8


@pytest.mark.parametrize("locks", ["", "unlockable"])
def test_a_folder_whose_lock_was_removed_has_one_driver_all_the_same(locks: str, tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "c"
    with driver(folder, "", log, 2.0, locks) as first, driver(folder, "", log, 2.0, locks) as second:
        go(first)
        wait_for("the first label", log)
        (folder / "driver.lock").unlink()
        go(second)
        said = [process.communicate(timeout=600)[1] for process in (first, second)]
    stopped, finished = (second, first) if not locks else (first, second)
    assert stopped.returncode == 1, said
    assert finished.returncode == 0, said
    last = said[[first, second].index(stopped)].strip().splitlines()[-1]
    assert last.startswith("psiflow_core.errors.CampaignError: "), last
    assert ("is being run by" if not locks else "this driver has lost the campaign") in last
    assert set(computed(log).values()) <= ({1} if not locks else {1, 2}), "what was under way at the change at the most"
    assert len(computed(log)) == 10
    events = read_campaign(folder).events
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert (folder / "results.json").exists()


def asked(folder: Path, reference: Spec) -> LabelRequest:
    structure, labels = molecule("H2O"), folder / "labels"
    return LabelRequest(reference=reference, structure=structure, labels=labels, folder=folder / "task")


def failing(folder: Path) -> LabelRequest:
    calculator = "psiflow_toys.misbehaving:Misbehaving"
    return asked(folder, psiflow.reference("ase", calculator=calculator, parameters={"how": "fails"}))


def toy(folder: Path) -> LabelRequest:
    return asked(folder, psiflow.reference("toy"))


def label(request: LabelRequest) -> Labelled:
    return request.run(Grant())


def file_of(request: LabelRequest) -> Path:
    return label_file(request.labels, request.reference, molecule("H2O"))


def left_by(owner: Owner, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(vars(owner)))
    return file


def dead() -> Owner:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return Owner(claims._place(), process.pid, time.time(), "dead")


def abroad() -> Owner:
    return Owner("elsewhere", 1, 0.0, "abroad")


def test_a_label_that_another_process_computes_is_told_and_takes_no_time(tmp_path: Path) -> None:
    task = toy(tmp_path)
    with claimed(claim_file(file_of(task))) as other:
        assert other is None
        assert label(task) == Labelled(cached=True, computed_by=str(Owner.here()))
    assert not has_label(file_of(task))
    assert label(task) == Labelled(cached=False)
    assert label(task) == Labelled(cached=True)


@pytest.mark.parametrize("how", ["fails", "nothing"])
def test_a_label_that_fails_or_is_there_leaves_no_claim(how: str, tmp_path: Path) -> None:
    task = failing(tmp_path) if how == "fails" else toy(tmp_path)
    assert ("failure" in perform("label", task.to_plain(), {})) == (how == "fails")
    assert not claim_file(file_of(task)).exists()


def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    task = toy(tmp_path)
    claim = left_by(dead(), claim_file(file_of(task)))
    assert holder(claim) is None
    assert label(task) == Labelled(cached=False)
    assert not claim.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b'{"pid": 1}'])
def test_a_claim_that_cannot_be_read_is_waited_for_as_long_as_a_lease_and_no_longer(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy(tmp_path)
    claim = left_by(dead(), claim_file(file_of(task)))
    claim.write_bytes(content)
    assert label(task).computed_by
    watch = Watch(claim)
    assert not watch.over()
    monkeypatch.setattr(claims, "EXPIRY", 0.0)
    assert watch.over()
    assert label(task) == Labelled(cached=False)


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a loop"])
def test_what_is_no_file_in_the_place_of_a_claim_is_waited_for_no_longer(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy(tmp_path)
    claim = claim_file(file_of(task))
    claim.parent.mkdir(parents=True)
    {"a folder": Path.mkdir, "a pipe": os.mkfifo, "a loop": lambda file: file.symlink_to(file.name)}[kind](claim)
    assert label(task).computed_by
    watch = Watch(claim)
    monkeypatch.setattr(claims, "EXPIRY", 0.0)
    assert watch.over()
    assert label(task) == Labelled(cached=False)


def test_a_dead_claim_that_this_user_may_not_remove_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = toy(tmp_path)
    claim = left_by(dead(), claim_file(file_of(task)))
    rename = Path.rename

    def barred(file: Path, target: Path) -> Path:
        if file == claim:
            raise PermissionError(1, "Operation not permitted")
        return rename(file, target)

    monkeypatch.setattr(Path, "rename", barred)
    assert Watch(claim).over()
    assert label(task) == Labelled(cached=False)


def test_a_claim_of_another_host_lasts_while_it_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = left_by(abroad(), tmp_path / "a.claim")
    watch = Watch(claim)
    monkeypatch.setattr(claims, "EXPIRY", 0.2)
    for second in range(4):
        assert not watch.over()
        time.sleep(0.15)
        os.utime(claim, (second, second))  # by a clock that is wrong by decades
    watch.over()
    time.sleep(0.25)
    assert watch.over()
    assert not claim.exists()


def test_a_claim_is_touched_while_its_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "REFRESHED", 0.05)
    file = tmp_path / "a.claim"
    with claimed(file):
        os.utime(file, (1, 1))
        deadline = time.monotonic() + 20
        while file.stat().st_mtime == 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_of_many_who_take_over_a_dead_claim_one_has_it(tmp_path: Path) -> None:
    file = left_by(dead(), tmp_path / "a.claim")
    begin, end = threading.Barrier(8), threading.Barrier(8)
    won = []

    def take() -> None:
        begin.wait()
        with claimed(file) as other:
            won.append(other is None)
            end.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 1
    assert list(tmp_path.iterdir()) == []
