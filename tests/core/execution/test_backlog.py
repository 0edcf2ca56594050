"""Tasks wait with the driver until a worker is free."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from ase.build import molecule
from psiflow_toys.campaigns import moved_water
from psiflow_toys.waiting import PATIENCE, wait_until

import psiflow_core as psiflow
from psiflow_core.errors import PoolFailed
from psiflow_core.execution.backlog import RECENT, Backlog, Parcel
from psiflow_core.execution.context import Context
from psiflow_core.execution.pools import Key, Started
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.processes import block


class Client:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def takes(self, kind: str) -> float:
        return 0.0

    def sent(self, ticket: int, pool: Key, started: Started, future: Future[str]) -> None:
        self.told.append(f"{ticket} sent")

    def refused(self, ticket: int, error: PoolFailed) -> None:
        self.told.append(f"{ticket}: {error}")


def parcel(ticket: int, client: Client) -> Parcel:
    return Parcel(IdleRequest(), 0.0, client, ticket)


def tickets(backlog: Backlog, free: int) -> list[int]:
    return [one.ticket for one in backlog.take(free)]


def ended() -> Future[str]:
    done: Future[str] = Future()
    done.set_result("{}")
    return done


def test_tasks_go_in_their_order_and_what_was_given_back_goes_first() -> None:
    backlog, client = Backlog(), Client()
    for ticket in (1, 2, 3):
        backlog.add(parcel(ticket, client), first=ticket == 3)
    assert tickets(backlog, 2) == [3, 1]
    assert (backlog.sent, len(backlog)) == (2, 1)
    assert tickets(backlog, 0) == tickets(backlog, -1) == []
    backlog.withdraw(Client(), {2})
    assert len(backlog) == 1
    backlog.withdraw(client, {2})
    assert len(backlog) == 0


def test_tasks_of_milliseconds_are_sent_a_little_ahead_and_long_ones_are_not() -> None:
    backlog, client = Backlog(), Client()
    for ticket in range(200):
        backlog.add(parcel(ticket, client), first=False)
    sent = tickets(backlog, 50)
    assert len(sent) == 50
    for _ in range(RECENT):
        backlog.ended(ended())
    ahead = len(tickets(backlog, 0))
    assert ahead > 0
    time.sleep(1.0)
    assert len(tickets(backlog, 0)) < ahead


def test_workers_that_do_not_start_refuse_all_that_wait() -> None:
    backlog, client = Backlog(), Client()
    backlog.add(parcel(1, client), first=False)
    backlog.refuse(PoolFailed("wrong partition"))
    assert client.told == ["1: wrong partition"]
    assert len(backlog) == 0


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path_factory.mktemp("pools")) as context:
        yield context


def slow(folder: Path, seconds: float) -> LabelRequest:
    reference, labels = psiflow.reference("toy", delay=seconds), folder / "labels"
    return LabelRequest(reference=reference, structure=molecule("H2O"), labels=labels, folder=folder / "task")


def test_a_task_without_a_free_worker_has_not_left_the_driver(context: Context, tmp_path: Path) -> None:
    desk = context.desk()
    desk.submit("running", slow(tmp_path, 3.0))
    wait_until((tmp_path / "task").exists)
    for number in range(5):
        desk.submit(f"waiting {number}", IdleRequest())
    assert desk.under_way == 1
    assert context.idle() == {"all": 0}
    desk.submit("first", IdleRequest(), first=True)
    order = [outcome.key for outcome in desk.completed(PATIENCE)]
    while len(order) < 7:
        order += [outcome.key for outcome in desk.completed(PATIENCE)]
    assert order == ["running", "first", *(f"waiting {number}" for number in range(5))]


def test_tasks_go_on_although_their_client_does_not_look(context: Context, tmp_path: Path) -> None:
    desk = context.desk()
    for number in range(3):
        desk.submit(str(number), slow(tmp_path / str(number), 0.2))
    wait_until(lambda: all((tmp_path / str(number) / "task").exists() for number in range(3)))
    found = {outcome.key for outcome in desk.completed(PATIENCE)}
    while len(found) < 3:
        found |= {outcome.key for outcome in desk.completed(PATIENCE)}


def test_a_withdrawn_task_is_never_begun(context: Context, tmp_path: Path) -> None:
    desk = context.desk()
    desk.submit("running", slow(tmp_path / "running", 2.0))
    wait_until((tmp_path / "running" / "task").exists)
    desk.submit("withdrawn", slow(tmp_path / "withdrawn", 0.0))
    desk.withdraw()
    assert [outcome.key for outcome in desk.completed(PATIENCE)] == ["running"]
    assert desk.empty
    assert not (tmp_path / "withdrawn").exists()


def test_a_block_that_ends_too_soon_for_tasks_like_the_finished_ones_begins_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = psiflow.reference("toy", delay=0.5)
    first, second = (
        LabelRequest(reference=reference, structure=atoms, labels=tmp_path / "labels", folder=tmp_path / name)
        for name, atoms in zip("ab", moved_water(2, seed=1), strict=True)
    )
    with Context("threads", folder=tmp_path) as context:
        desk = context.desk()
        desk.submit("first", first)
        wait_until(lambda: [outcome.key for outcome in desk.completed()] == ["first"])
        assert desk.takes("label") >= 0.5
        assert desk.takes("train") == 0.0
        monkeypatch.setenv(block.BEGAN, str(time.time() - 300.0))
        monkeypatch.setenv(block.ENDS, str(time.time() + block.SPARE + 0.3))
        desk.submit("second", second)
        (outcome,) = desk.completed(timeout=10.0)
        assert outcome.is_cut
