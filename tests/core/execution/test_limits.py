"""Tasks that hang, run too long, eat the memory or leave processes behind: on real workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from ase.build import molecule
from psiflow_toys.waiting import PATIENCE, survivors

import psiflow_core as psiflow
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.processes import guard, limits
from psiflow_core.processes.limits import VERDICT

CALCULATOR = "psiflow_toys.misbehaving:Misbehaving"


def task(folder: Path, how: str, ranks: int = 0) -> LabelRequest:
    parameters = {"how": how, "ranks": ranks, "told": str(folder / "ranks")}
    folder.mkdir(parents=True, exist_ok=True)
    reference = psiflow.reference("ase", calculator=CALCULATOR, parameters=parameters)
    structure, labels = molecule("H2O"), folder / "labels"
    return LabelRequest(reference=reference, structure=structure, labels=labels, folder=folder / "task")


def outcome(context: Context, folder: Path, how: str, ranks: int = 0) -> Outcome:
    return context.run(task(folder, how, ranks), timeout=PATIENCE)


def ranks_of(folder: Path) -> list[psutil.Process]:
    """Those that are left of the processes that the engine started."""
    numbers = [int(word) for word in (folder / "ranks").read_text().split()]
    assert numbers
    return survivors(numbers)


@pytest.mark.parametrize("executor", ["local", "toy-blocks"])  # of the core, and from outside it
@pytest.mark.parametrize(
    ("how", "limits", "reason"),
    [
        ("hangs", {"silence": 3.0}, "hung"),
        ("spins", {"task_walltime": 3.0, "silence": 10.0}, "wall time"),
        ("eats", {"memory_per_worker": 1.0}, "memory"),
    ],
)
def test_a_task_that_takes_too_much_is_ended_with_all_its_processes_and_the_pool_goes_on(
    how: str, limits: dict[str, float], reason: str, executor: str, tmp_path: Path
) -> None:
    with Context(psiflow.executor(executor, workers=2, **limits), folder=tmp_path / "pools") as context:
        context.desk().submit("unharmed", IdleRequest())
        ended = outcome(context, tmp_path, how, ranks=2)
        assert ended.failure is not None
        assert ended.failure.reason == reason, ended.failure.message
        assert "pool" in ended.failure.message or "done nothing" in ended.failure.message
        assert not ranks_of(tmp_path)
        assert not (tmp_path / "task" / VERDICT).exists()
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None


@pytest.mark.parametrize("place", ["gone", "a file"])
def test_a_hung_task_is_ended_for_its_reason_also_where_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with Context(psiflow.executor("local", workers=1, silence=3.0), folder=tmp_path / "pools") as context:
        desk = context.desk()
        desk.submit("hung", task(folder, "hangs", ranks=1))
        deadline = time.monotonic() + PATIENCE
        while not (folder / "ranks").exists() and time.monotonic() < deadline:
            list(desk.completed())
        ranks = [psutil.Process(int(word)) for word in (folder / "ranks").read_text().split()]
        shutil.rmtree(folder)
        if place == "a file":
            folder.touch()
        ended: list[Outcome] = []
        while not ended and time.monotonic() < deadline:
            ended += desk.completed()
        assert ended[0].failure is not None
        assert ended[0].failure.reason == "hung", ended[0].failure.message
        assert not survivors(ranks)
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None, "the guard is still there"


def test_a_clock_that_is_set_makes_no_process_another(monkeypatch: pytest.MonkeyPatch) -> None:
    birth = guard.born(os.getpid())
    since_boot = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: since_boot - 7200.0)  # as after a clock was set back
    assert guard.lives(os.getpid(), birth)
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    birth = guard.born(gone.pid)
    assert not guard.lives(os.getpid(), birth - 3600.0)
    gone.wait()
    assert not guard.lives(gone.pid, birth)


def test_a_guard_lives_through_what_it_cannot_do(tmp_path: Path) -> None:
    script = (
        "import subprocess; from psiflow_core.processes import guard\n"
        "class Sick:\n"
        "    def excessive(self, processes): raise OSError(28, 'No space left on device')\n"
        "class Endless:\n"
        "    def over(self): return False\n"
        "child = subprocess.Popen(['sleep', '2'])\n"
        "print(guard._watch(child, Sick(), Endless(), lambda: True))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert "No space left on device" in done.stderr


def test_a_verdict_that_can_be_written_nowhere_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no" / "temporary" / "files"))
    limits._write_verdict(str(tmp_path / "no" / "campaign" / "task"), "hung", "it has done nothing for 3 s")
    assert "it has done nothing for 3 s" in capsys.readouterr().err
    assert limits.read_verdict(tmp_path / "no" / "campaign" / "task") is None


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"{}", b"\xff"])
def test_a_verdict_that_a_full_disk_has_cut_short_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / VERDICT).write_bytes(content)
    assert limits.read_verdict(tmp_path) is None
    assert not (tmp_path / VERDICT).exists()


def test_a_worker_that_dies_leaves_no_process_behind(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        died = outcome(context, tmp_path, "dies", ranks=2)
        assert died.failure is not None
        assert died.failure.reason == "lost worker"
        assert not ranks_of(tmp_path), "they had a session of their own, and are gone all the same"
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None


def test_a_task_that_fails_leaves_no_process_behind(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        failed = outcome(context, tmp_path, "fails", ranks=1)
        assert failed.failure is not None
        assert "the engine has crashed" in failed.failure.message
        assert not ranks_of(tmp_path)


def test_a_task_that_works_is_not_taken_to_hang(tmp_path: Path) -> None:
    executor = psiflow.executor("local", workers=1, silence=3.0, task_walltime=10.0)
    with Context(executor, folder=tmp_path / "pools") as context:
        start = time.monotonic()
        ended = outcome(context, tmp_path, "spins", ranks=1)
        assert ended.failure is not None
        assert ended.failure.reason == "wall time"
        assert time.monotonic() - start > 10.0


@pytest.mark.parametrize("pause", [0.0, 15.0])  # longer than Parsl's poller waits between two looks at its pools
def test_a_pool_whose_interchange_was_killed_is_started_anew(pause: float, tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path) as context:
        first = context.run(IdleRequest(), timeout=PATIENCE).worker
        started = [process for folder in (tmp_path / "pools").iterdir() for process in guard.guarding(folder)]
        for process in started:
            if "HTEX interchange" in process.cmdline()[0]:
                process.kill()
        time.sleep(pause)
        for _ in range(3):
            ended = context.run(IdleRequest(), timeout=PATIENCE)
            assert ended.failure is None or ended.failure.reason == "lost worker"
        assert ended.failure is None
        assert ended.worker != first
        assert not survivors(started), "the old pool is gone"
