"""The end of a block: workers know it in time, and a task that ends with its block has not failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from psiflow_toys.waiting import survivors, wait_until

from psiflow_core.processes import block, guard
from psiflow_core.processes.limits import PLACE, read_verdict

WORKER = """
import json, sys, time
from pathlib import Path
from psiflow_core.processes import block
from psiflow_core.processes.limits import limited
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
pace = block.Pace()
with limited(str(folder), {}):
    (folder / "begun").touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not pace():
        time.sleep(0.05)
    (folder / "told.json").write_text(json.dumps([block.remaining(), block.noticed()]))
(folder / "ended").touch()
time.sleep(600)
"""


def guarded(folder: Path, seconds: float, **options: float) -> subprocess.Popen[bytes]:
    """A guard with a worker that does so long a task in steps."""
    folder.mkdir(exist_ok=True)
    words = guard.command(os.getpid(), folder / "pool", "block-0", **options)
    return subprocess.Popen([*words, sys.executable, "-c", WORKER, str(folder), str(seconds)])


def told(folder: Path) -> tuple[float, bool]:
    """The time left, and whether there was a notice, when the task stopped."""
    remaining, noticed = json.loads((folder / "told.json").read_text())
    return remaining, noticed


def end(process: subprocess.Popen[bytes]) -> None:
    guard.end_family(process)


def test_outside_a_block_there_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (block.ENDS, PLACE):
        monkeypatch.delenv(name, raising=False)
    assert block.remaining() == float("inf")
    assert not block.noticed()
    assert not block.Pace()()


def test_a_task_that_can_stop_does_so_before_the_wall_time_of_its_block(tmp_path: Path) -> None:
    process = guarded(tmp_path, 600.0, walltime=block.SPARE + 4.0)
    try:
        wait_until((tmp_path / "ended").exists)
        remaining, noticed = told(tmp_path)
        assert 0.0 < remaining < block.SPARE + 1.0
        assert not noticed
    finally:
        end(process)


def test_the_batch_system_knows_the_end_of_its_job_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1500")
    assert block.scheduled(1000.0, 900.0, os.environ) == 1500.0
    assert block.scheduled(1000.0, 300.0, os.environ) == 1300.0
    assert block.scheduled(1000.0, None, {}) == float("inf")


def test_after_a_notice_tasks_stop_and_then_the_block_ends_by_itself(tmp_path: Path) -> None:
    process = guarded(tmp_path, 600.0, grace=60.0)
    wait_until((tmp_path / "begun").exists)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    wait_until((tmp_path / "ended").exists)
    assert told(tmp_path)[1]
    process.wait(30.0)
    assert not survivors(family)


def test_a_task_that_cannot_stop_is_ended_after_the_grace_and_its_block_is_the_reason(tmp_path: Path) -> None:
    script = WORKER.replace("not pace()", "True")
    words = guard.command(os.getpid(), tmp_path / "pool", "block-0", grace=3.0)
    process = subprocess.Popen([*words, sys.executable, "-c", script, str(tmp_path), "600"])
    wait_until((tmp_path / "begun").exists)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.wait(60.0)
    assert not survivors(family)
    assert not (tmp_path / "ended").exists()
    assert read_verdict(tmp_path) == (block.INTERRUPTED, "its block has ended")


@pytest.mark.parametrize(("before", "reason"), [(5.0, block.INTERRUPTED), (0.0, "wall time")])
def test_a_task_that_is_killed_at_the_wall_time_has_its_block_as_the_reason(
    before: float, reason: str, tmp_path: Path
) -> None:
    """A batch system kills all processes of a job at once, the guard too. Who had the whole block has failed."""
    first = f'(folder / "first").mkdir()\nwith limited(str(folder / "first"), {{}}):\n    time.sleep({before})\n'
    script = WORKER.replace("not pace()", "True").replace("with limited", f"{first}with limited", 1)
    words = guard.command(os.getpid(), tmp_path / "pool", "block-0", walltime=block.WARNED + 7.0)
    process = subprocess.Popen([*words, sys.executable, "-c", script, str(tmp_path), "600"])
    wait_until((tmp_path / "ended.json").exists)
    family = guard.family(process.pid)
    for one in family:
        one.kill()
    process.wait()
    verdict = read_verdict(tmp_path)
    assert verdict is not None
    assert verdict[0] == reason


def test_a_young_block_takes_any_task_although_its_workers_came_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setenv(block.BEGAN, str(now - 20.0))
    monkeypatch.setenv(block.ENDS, str(now + 40.0))
    block._first_task.cache_clear()
    assert block.has_time(1000.0)
    monkeypatch.setattr(time, "time", lambda: now + 10.0)
    assert not block.has_time(1000.0)
    assert block.has_time(15.0)
    block._first_task.cache_clear()


def test_the_reason_of_an_earlier_attempt_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_text(json.dumps({"reason": "interrupted", "message": "long ago"}))
    process = guarded(tmp_path, 600.0)
    try:
        wait_until((tmp_path / "begun").exists)
        assert read_verdict(tmp_path) is None
    finally:
        end(process)


def test_a_task_stops_when_the_next_chance_would_come_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = block.Pace()
    assert not pace()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100.0)  # a step of 100 s
    assert not pace()
    monkeypatch.setenv(block.ENDS, str(time.time() + 120.0))
    assert pace()
