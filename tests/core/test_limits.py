"""Tasks that hang, run too long, eat the memory or leave processes behind: on real workers."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from ase.build import molecule

import psiflow_core as psiflow
from psiflow_core import guard
from psiflow_core.context import Context, Outcome
from psiflow_core.leases import VERDICT
from psiflow_core.structures import Plain, to_plain

CALCULATOR = "psiflow_toys.misbehaving:Misbehaving"


def task(folder: Path, how: str, ranks: int = 0) -> Plain:
    parameters = {"how": how, "ranks": ranks, "told": str(folder / "ranks")}
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "reference": psiflow.reference("ase", calculator=CALCULATOR, parameters=parameters).to_plain(),
        "structure": to_plain(molecule("H2O")),
        "labels": str(folder / "labels"),
        "folder": str(folder / "task"),
    }


def outcome(context: Context, folder: Path, how: str, ranks: int = 0) -> Outcome:
    return context.run("label", "label", task(folder, how, ranks), timeout=90)


def ranks_of(folder: Path) -> list[psutil.Process]:
    """Those that are left of the processes that the engine started."""
    numbers = [int(word) for word in (folder / "ranks").read_text().split()]
    assert numbers
    deadline = time.monotonic() + 10
    while (left := [n for n in numbers if psutil.pid_exists(n)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [psutil.Process(number) for number in left]


@pytest.mark.parametrize("executor", ["local", "toy-blocks"])  # of the core, and from outside it
@pytest.mark.parametrize(
    ("how", "limits", "reason"),
    [
        ("hangs", {"silence": 3.0}, "hung"),
        ("spins", {"wall_time": 3.0, "silence": 2.0}, "wall time"),
        ("eats", {"memory_per_worker": 1.0}, "memory"),
    ],
)
def test_a_task_that_takes_too_much_is_ended_with_all_its_processes_and_the_pool_goes_on(
    how: str, limits: dict[str, float], reason: str, executor: str, tmp_path: Path
) -> None:
    with Context(psiflow.executor(executor, workers=2, **limits), folder=tmp_path / "pools") as context:
        context.submit("unharmed", "label", "idle", {})
        ended = outcome(context, tmp_path, how, ranks=2)
        assert ended.failure is not None
        assert ended.failure["reason"] == reason, ended.failure["message"]
        assert "pool" in ended.failure["message"] or "done nothing" in ended.failure["message"]
        assert not ranks_of(tmp_path)
        assert not (tmp_path / "task" / VERDICT).exists()
        assert context.run("label", "idle", {}, timeout=60).failure is None


def test_a_worker_that_dies_leaves_no_process_behind(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        died = outcome(context, tmp_path, "dies", ranks=2)
        assert died.failure is not None
        assert died.failure["reason"] == "lost worker"
        assert not ranks_of(tmp_path), "they had a session of their own, and are gone all the same"
        assert context.run("label", "idle", {}, timeout=60).failure is None


def test_a_task_that_fails_leaves_no_process_behind(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        failed = outcome(context, tmp_path, "fails", ranks=1)
        assert failed.failure is not None
        assert "the engine has crashed" in failed.failure["message"]
        assert not ranks_of(tmp_path)


def test_a_task_that_works_is_not_taken_to_hang(tmp_path: Path) -> None:
    executor = psiflow.executor("local", workers=1, silence=1.5, wall_time=8.0)
    with Context(executor, folder=tmp_path / "pools") as context:
        start = time.monotonic()
        ended = outcome(context, tmp_path, "spins", ranks=1)
        assert ended.failure is not None
        assert ended.failure["reason"] == "wall time"
        assert time.monotonic() - start > 8.0


@pytest.mark.parametrize("pause", [0.0, 15.0])  # longer than Parsl's poller waits between two looks at its pools
def test_a_pool_whose_interchange_was_killed_is_started_anew(pause: float, tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        first = context.run("label", "idle", {}, timeout=60).worker
        started = [process for folder in (tmp_path / "pools").iterdir() for process in guard.guarding(folder)]
        for process in started:
            if "HTEX interchange" in process.cmdline()[0]:
                process.kill()
        time.sleep(pause)
        for _ in range(3):
            ended = context.run("label", "idle", {}, timeout=60)
            assert ended.failure is None or ended.failure["reason"] == "lost worker"
        assert ended.failure is None
        assert ended.worker != first
        assert not psutil.wait_procs(started, timeout=10)[1], "the old pool is gone"
