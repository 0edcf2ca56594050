"""Campaigns on a batch system: its queue is long, its blocks end, its files are late."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psiflow_toys.batch import Queue
from psiflow_toys.campaigns import learning, run
from psiflow_toys.waiting import wait_until
from rich.console import Console

import psiflow_core as psiflow
from psiflow_core import files
from psiflow_core.cli.status import picture
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks import perform
from psiflow_core.labels.store import structure_file
from psiflow_core.learning.driver.pools_file import read_pools
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import Interrupted
from psiflow_core.learning.machine.state import State
from psiflow_core.online import Result

CAMPAIGN = 400.0
"""Far longer than a campaign takes here. [s]"""


@contextmanager
def campaign(folder: Path, context: Context, asked: psiflow.OnlineLearning) -> Iterator[Future[Result]]:
    """A campaign that runs in a thread."""
    with context, ThreadPoolExecutor(1) as threads:
        yield threads.submit(run, folder, context, asked)


def shown(folder: Path) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(picture(folder))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def state_of(folder: Path) -> State:
    return read_campaign(folder).state


def labels(folder: Path) -> int:
    return len(list((folder / "labels").rglob("*.json")))


def test_a_campaign_outlasts_a_long_queue_and_blocks_that_are_cancelled(tmp_path: Path) -> None:
    queue, folder = tmp_path / "queue", tmp_path / "c"
    queue.mkdir()
    (queue / "hold").write_text("Resources")
    options = {"queue": str(queue), "address": "127.0.0.1", "blocks": 2, "workers": 1, "idle": 600}
    context = Context(psiflow.executor("toy-batch", **options), folder=tmp_path / "context")
    asked = learning(labels=8, reference=psiflow.reference("toy", delay=1.0))
    with campaign(folder, context, asked) as result:
        wait_until(lambda: result.done() or "Resources" in _words(folder))
        assert not result.done()
        assert "in the queue (Resources)" in shown(folder)
        (queue / "hold").unlink()
        wait_until(lambda: result.done() or labels(folder) > 2)
        running = [job.name for job in (queue / "jobs").iterdir()]
        Queue(queue).cancel(running)
        assert result.result(CAMPAIGN).report.exists()
    state = state_of(folder)
    assert state.finished == "labels"
    assert not state.failures, "the end of a block is no failure"
    assert state.interruptions
    cut = [event.what for event in read_campaign(folder).events if isinstance(event.what, Interrupted)]
    assert {what.reason for what in cut} <= {"interrupted", "unfinished"}
    assert "ended before their tasks" in shown(folder)


def _words(folder: Path) -> str:
    seen = read_pools(folder)
    return "" if seen is None else " ".join(one.told for one in seen.pools)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """What a worker has written appears to the driver so much later: on a file system that remembers absence."""

    def delayed(seconds: float) -> None:
        kept = perform._kept

        def late(outcome: dict[str, Any], folder: Path | None) -> dict[str, Any]:
            for file in () if folder is None else written(outcome, folder):
                hidden = file.rename(file.with_name(f".hidden-{file.name}"))
                threading.Timer(seconds, hidden.rename, [file]).start()
            return dict(kept(outcome, folder))

        monkeypatch.setattr(perform, "_kept", late)
        monkeypatch.setattr(files, "LOCAL", frozenset())

    def written(outcome: dict[str, Any], folder: Path) -> Iterator[Path]:
        """The label, the model, the walkers and the candidates of a task."""
        met = [one["candidate"]["structure"] for one in outcome["value"].get("walkers", ()) if one.get("candidate")]
        campaign = folder.parents[1]
        for place in (campaign / "labels", campaign / "models", folder):
            for file in place.rglob("*.json"):
                if file not in seen and not file.name.startswith((".", "task")):
                    seen.add(file)
                    yield file
        yield from (structure_file(campaign / "structures", key) for key in met)

    seen: set[Path] = set()
    return delayed


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
def test_what_a_worker_has_reported_is_waited_for(schedule: str, late: Callable[[float], None], tmp_path: Path) -> None:
    late(3.0)
    context = Context(psiflow.executor("threads"), folder=tmp_path / "context")
    with context:
        run(tmp_path / "c", context, learning(labels=6, schedule=schedule))
    state = state_of(tmp_path / "c")
    assert state.finished == "labels"
    assert not state.failures
