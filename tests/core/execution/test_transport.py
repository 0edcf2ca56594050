"""Sites without a shared file system: a task's files travel with it, each once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import pytest
from ase.build import molecule
from psiflow_toys import campaigns
from psiflow_toys.reference import ToyReference
from psiflow_toys.waiting import PATIENCE, wait_until

import psiflow_core as psiflow
from psiflow_core.components import LabelTask, Pool, Spec
from psiflow_core.errors import FileCorrupt, WorkerLost
from psiflow_core.execution.blocks import Answer, Batch, BatchSystem, Block, BlockState
from psiflow_core.execution.blocks._keys import FILES, packed
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.manifest import ManifestFile, TrainingLabels
from psiflow_core.execution.tasks.perform import perform
from psiflow_core.execution.tasks.request import Grant, Request
from psiflow_core.execution.tasks.train import TrainingRequest
from psiflow_core.execution.transport import courier, way_back
from psiflow_core.execution.transport import depot as depots
from psiflow_core.execution.transport.arrival import Arrival
from psiflow_core.execution.transport.away import carried
from psiflow_core.execution.transport.courier import Courier, Refused, courier_of
from psiflow_core.execution.transport.depot import Depot
from psiflow_core.execution.transport.shelf import Shelf
from psiflow_core.execution.transport.ticket import Ticket
from psiflow_core.execution.transport.turns import Turns
from psiflow_core.execution.transport.waybill import Cargo
from psiflow_core.execution.transport.wire import PIECE
from psiflow_core.labels.store import keep_given
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.processes.claims import claimed
from psiflow_core.processes.limits import PLACE
from psiflow_core.structures import Plain, label_of, with_label


def has_namespaces() -> bool:
    tool = shutil.which("unshare")
    return tool is not None and subprocess.run([tool, "-m", "true"], capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="making a mount namespace is not permitted here")


def elsewhere(folder: Path, workers: int = 1) -> Spec:
    """Workers on this machine that see nothing of this folder: an empty file system lies over it."""
    folder.mkdir(parents=True, exist_ok=True)
    under = f"""unshare -m sh -c 'mount -t tmpfs -o ro tmpfs {folder}; exec "$@"' sh"""
    return psiflow.executor("toy-blocks", workers=workers, under=under, shared=False)


def temporary_files(folder: Path) -> list[Path]:
    folders = ("tasks", "labels", "models", "structures", "given", "walkers")
    return [file for name in folders for file in (folder / name).rglob(".*")]


@needs_namespaces
def test_every_verb_works_with_workers_that_do_not_see_the_folder(tmp_path: Path) -> None:
    water = campaigns.moved_water(6, seed=1)
    with Context(elsewhere(tmp_path), folder=tmp_path) as context:
        data = context.label(water, psiflow.reference("toy")).result(PATIENCE)
        expected = [ToyReference().label(atoms, LabelTask(tmp_path)).energy for atoms in water]
        np.testing.assert_allclose([label_of(atoms).energy for atoms in data], expected)
        model = context.train(psiflow.potential("toy", basis=8), data, members=2).result(PATIENCE)
        sampler = psiflow.sampler("ase", temperature=300.0)
        (run,) = context.sample(model, sampler, water[0], steps=4, stride=2).result(PATIENCE)
        (further,) = context.sample(model, sampler, [run], steps=4).result(PATIENCE)
        assert (len(run.frames), further.walker.step) == (2, 8)
        assert len(context.evaluate(model, data).result(PATIENCE)) == 1
        (relaxed,) = context.relax(psiflow.reference("toy"), [water[0]], steps=3).result(PATIENCE)
        assert relaxed.steps == 3
    assert temporary_files(tmp_path) == []


@needs_namespaces
def test_a_campaign_runs_on_a_site_without_the_campaigns_files(tmp_path: Path) -> None:
    folder = tmp_path / "campaign"
    with Context(elsewhere(folder, workers=2)) as context:
        result = campaigns.run(folder, context)
    assert len(result.dataset) >= 12
    assert read_campaign(folder).state.failures == []
    assert temporary_files(folder) == []


@pytest.fixture
def depot() -> Iterator[Depot]:
    depot = Depot()
    yield depot
    depot.close()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a node."""
    place = tmp_path / "node"
    place.mkdir()
    monkeypatch.setenv(PLACE, str(place))
    return place


def opened(depot: Depot, request: Request) -> Ticket:
    return depot.ticket(request, ["127.0.0.1"])


def training(folder: Path, labels: int = 3) -> TrainingRequest:
    """The request of a training."""
    water = campaigns.moved_water(labels, seed=2)
    labelled = [with_label(atoms, ToyReference().label(atoms, LabelTask(folder))) for atoms in water]
    files = tuple(keep_given(folder / "given", atoms) for atoms in labelled)
    content = TrainingLabels(training=files, validation=(), atomic_energies={"H": 0.0, "O": 0.0})
    manifest = ManifestFile.write(folder / "tasks", "train", content, folder)
    return TrainingRequest(
        potential=psiflow.potential("toy", basis=8),
        labels=manifest,
        seed=1,
        weights=folder / "models",
        folder=folder / "tasks" / "train",
    )


def unkept(outcome: Plain, folder: Path | None) -> Plain:
    return outcome


def test_a_task_runs_elsewhere_as_it_runs_here(depot: Depot, node: Path, tmp_path: Path) -> None:
    here, there = training(tmp_path / "here"), training(tmp_path / "there")
    grant = Grant().to_plain()
    expected = perform(here.kind, here.to_plain(), grant)
    outcome = perform(there.kind, there.to_plain(), grant | {"ticket": opened(depot, there).to_plain()})
    assert outcome["value"] == expected["value"]
    (file,) = there.result_files(there.result.from_plain(outcome["value"]))
    file.verified()
    written = [sorted(file.name for file in one.places[-1].rglob("*")) for one in (here, there)]
    assert written[0] == written[1]
    assert not list(node.glob("files/task-*")), "nothing of the task stays on the node"


def test_a_failure_names_the_drivers_paths(depot: Depot, node: Path, tmp_path: Path) -> None:
    request = training(tmp_path)
    damaged = next((tmp_path / "given").glob("*.json"))
    damaged.write_text(damaged.read_text().replace("structure", "structura"))
    grant = {**Grant().to_plain(), "ticket": opened(depot, request).to_plain()}
    failed = perform(request.kind, request.to_plain(), grant)["failure"]
    assert (failed["type"], str(damaged) in failed["message"], str(node) in failed["message"]) == (
        "LabelCorrupt",
        True,
        False,
    )


def test_checkpoints_reach_the_driver_while_a_training_runs_and_the_next_attempt(
    depot: Depot, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way_back, "PERIOD", 0.05)
    request = training(tmp_path)
    kept = request.checkpoints / "step.ckpt"

    class Killed(BaseException):
        """The end of a worker."""

    def until_killed(local: Plain) -> Plain:
        file = TrainingRequest.from_plain(local).checkpoints / "step.ckpt"
        assert not file.is_relative_to(tmp_path / "tasks")
        file.parent.mkdir(parents=True)
        file.write_text("100 steps")
        wait_until(kept.is_file)
        raise Killed

    def going_on(local: Plain) -> Plain:
        file = TrainingRequest.from_plain(local).checkpoints / "step.ckpt"
        assert file.read_text() == "100 steps"
        file.write_text("200 steps")
        file.with_name("another").write_text("")
        return {"value": {}}

    def at_its_end(local: Plain) -> Plain:
        TrainingRequest.from_plain(local).checkpoints.joinpath("another").unlink()
        return {"value": {}}

    with pytest.raises(Killed):
        carried(opened(depot, request), request, until_killed, unkept)
    carried(opened(depot, request), request, going_on, unkept)
    assert (kept.read_text(), kept.with_name("another").exists()) == ("200 steps", True)
    carried(opened(depot, request), request, at_its_end, unkept)
    assert not kept.with_name("another").exists(), "what a task removes is removed"


def cargo(file: Path) -> Cargo:
    return Cargo(path=file, digest=hashlib.sha256(file.read_bytes()).hexdigest(), size=file.stat().st_size)


def test_the_workers_of_a_node_fetch_each_file_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json", "the same as a.json")]
    for file, content in zip(files, ("a", "b", "a"), strict=True):
        file.write_text(content)
    cargos, fetched, lock = list(map(cargo, files)), [], threading.Lock()

    def fetch(wanted: list[tuple[Cargo, Path]]) -> None:
        for one, target in wanted:
            with lock:
                fetched.append(one.path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one.path, target)

    def worker(_: int) -> list[str]:
        shelf = Shelf(tmp_path)
        shelf.complete(cargos, fetch)
        return [shelf.file(one).read_text() for one in cargos]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(worker, range(4))) == [["a", "b", "a"]] * 4
    assert len(fetched) == 2
    altered = Shelf(tmp_path).file(cargos[1])
    altered.chmod(0o644)
    altered.write_text("c")
    assert worker(0) == ["a", "b", "a"], "a file that was written to is fetched again"


def test_files_of_any_size_arrive_whole(depot: Depot, node: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    sizes = (0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7)
    request = LabelRequest(
        reference=psiflow.reference("toy"),
        structure=molecule("H2O"),
        labels=tmp_path / "labels",
        folder=tmp_path / "task",
    )
    contents = {f"{size}.bin": random.bytes(size) for size in sizes}

    def write(local: Plain) -> Plain:
        folder = LabelRequest.from_plain(local).own_folder
        folder.mkdir(parents=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return {}

    carried(opened(depot, request), request, write, unkept)
    assert {file.name: file.read_bytes() for file in (tmp_path / "task").iterdir()} == contents

    back = TrainingRequest.model_construct(**{**vars(training(tmp_path)), "folder": tmp_path / "other"})
    back.checkpoints.mkdir(parents=True)
    for name, content in contents.items():
        (back.checkpoints / name).write_bytes(content)
    seen: dict[str, bytes] = {}

    def read(local: Plain) -> Plain:
        found = TrainingRequest.from_plain(local).checkpoints
        seen.update({file.name: file.read_bytes() for file in found.iterdir()})
        return {}

    carried(opened(depot, back), back, read, unkept)
    assert seen == contents


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    digest, target = hashlib.sha256(b"abcdef").hexdigest(), tmp_path / "folder" / "file"
    arrival = Arrival(target, digest, 6)
    assert not arrival.take(0, b"abc")
    assert not target.exists()
    assert not arrival.take(0, b"abc"), "a piece may come twice"
    with pytest.raises(FileCorrupt, match="a piece of it is missing"):
        arrival.take(4, b"ef")
    assert arrival.take(3, b"def")
    assert target.read_bytes() == b"abcdef"
    damaged = Arrival(target, digest, 6)
    with pytest.raises(FileCorrupt, match="its hash differs"):
        damaged.take(0, b"abcdeX")
    damaged.discard()
    assert target.read_bytes() == b"abcdef"
    assert [file.name for file in target.parent.iterdir()] == ["file"]


def test_a_ticket_opens_the_files_of_its_task_only(depot: Depot, node: Path, tmp_path: Path) -> None:
    request = training(tmp_path)
    ticket, (secret, outside) = opened(depot, request), (tmp_path / "secret", tmp_path / "outside")
    secret.write_text("secret")
    here = courier_of(ticket)
    with pytest.raises(Refused, match="is no file of the task"):
        here.fetch(ticket.token, [(cargo(secret), node / "secret")])
    for path in (outside, request.own_folder / ".." / ".." / "outside"):
        stolen = Cargo(path=path, digest=cargo(secret).digest, size=6)
        with pytest.raises(Refused, match="in none of the folders"):
            here.bring(ticket.token, [(stolen, secret)])
        with pytest.raises(Refused, match="in none of the folders"):
            here.remove(ticket.token, [path])
    with pytest.raises(Refused, match="no longer waits"):
        here.waybill("another token")
    done: Future[str] = Future()
    done.set_result("{}")
    depot.ended(ticket, done)
    with pytest.raises(Refused, match="no longer waits"):
        here.waybill(ticket.token)
    assert not outside.exists()
    assert list(node.iterdir()) == []


def test_a_driver_that_does_not_answer_is_a_lost_worker(
    depot: Depot, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 0.5)
    request = training(tmp_path)
    depot.close()
    grant = {**Grant().to_plain(), "ticket": opened(depot, request).to_plain()}
    failed = perform(request.kind, request.to_plain(), grant)["failure"]
    assert (failed["type"], failed["reason"]) == ("WorkerLost", "lost worker")
    assert "does not answer at 127.0.0.1:" in failed["message"]


def test_the_first_address_that_answers_is_used(depot: Depot, node: Path, tmp_path: Path) -> None:
    request = training(tmp_path)
    ticket = depot.ticket(request, ["127.0.0.1", "192.0.2.1"])
    wrong_port = ticket.model_copy(update={"addresses": ("127.0.0.1:1", *ticket.addresses)})
    assert courier_of(wrong_port).waybill(ticket.token).named


def test_a_depot_with_another_key_is_not_believed(
    depot: Depot, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zmq

    monkeypatch.setattr(courier, "PATIENCE", 0.5)
    ticket = opened(depot, training(tmp_path))
    other = ticket.model_copy(update={"key": zmq.curve_keypair()[0].decode()})
    with pytest.raises(WorkerLost, match="does not answer"):
        courier_of(other).waybill(ticket.token)


def test_answers_that_are_not_read_take_room_until_their_couriers_are_gone() -> None:
    turns, asked = Turns(room=10, patience=0.2), [b"ask"]

    def answered() -> list[bytes]:
        served = []
        for one, _ in turns.next():
            turns.answered(one, 6)
            served.append(one)
        return served

    for courier_name in (b"a", b"b", b"c", b"d"):
        turns.arrived(courier_name, asked)
    assert answered() == [b"a", b"b"], "two answers fill the room"
    turns.arrived(b"a", asked)
    assert answered() == [b"c"], "the one that asks again has read its answer"
    assert len(turns) == 2
    time.sleep(0.3)
    assert answered() == [b"d", b"a"]


def test_many_couriers_share_a_depot_without_room(node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depots, "ROOM", 1)
    files = tmp_path / "tasks" / "train" / "training"
    files.mkdir(parents=True)
    (files / "checkpoint").write_bytes(np.random.default_rng(4).bytes(3 * PIECE + 5))
    request, depot = training(tmp_path), Depot()

    def fetch(number: int) -> bytes:
        ticket = opened(depot, request)
        own = Courier(ticket.addresses, ticket.key)
        kept = own.waybill(ticket.token).kept
        own.fetch(ticket.token, [(kept[0], node / str(number))])
        return (node / str(number)).read_bytes()

    try:
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(fetch, range(4))) == {(files / "checkpoint").read_bytes()}
    finally:
        depot.close()


@needs_namespaces
def test_the_driver_is_told_why_a_guard_ended_a_task(tmp_path: Path) -> None:
    spec = elsewhere(tmp_path)
    limited = replace(spec, options={**spec.options, "task_walltime": 4.0})
    request = LabelRequest(
        reference=psiflow.reference("toy", delay=120.0),
        structure=molecule("H2O"),
        labels=tmp_path / "labels",
        folder=tmp_path / "tasks" / "label",
    )
    with Context(limited, folder=tmp_path) as context:
        failed = context.run(request, timeout=PATIENCE).failure
    assert failed is not None
    assert (failed.reason, "longer than the 4 s" in failed.message) == ("wall time", True)


class Site(Batch):
    """A batch system whose nodes see no files of the driver."""

    name: ClassVar[str] = "site"

    def scheduler(self, pool: Pool) -> Jobs:
        return Jobs(self)


class Jobs(BatchSystem):
    """Writes scripts, and submits none."""

    def head(self, block: Block) -> list[str]:
        return [f"#SITE {self.output(block)}"]

    def submission(self, script: Path, block: Block) -> list[str]:
        return ["echo", "7"]

    def job(self, answer: Answer) -> str:
        return answer.output.strip()

    def refused(self, answer: Answer) -> bool:
        return False

    def states(self, ids: Collection[str]) -> dict[str, BlockState]:
        return {}

    def cancel(self, ids: Collection[str]) -> None:
        """There is no job."""

    def find(self, tag: str) -> dict[str, str]:
        return {}


def test_keys_travel_in_the_job_script_which_others_cannot_read(tmp_path: Path, node: Path) -> None:
    keys, pool = tmp_path / "certificates", tmp_path / "a pool's folder"
    for folder in (keys, pool):
        folder.mkdir()
    for name in FILES:
        (keys / name).write_text(f"the '{name}'\n")
    unpack = "import sys; from psiflow_core.execution.blocks._keys import with_local_files as local\n"
    unpack += "print(*local(sys.argv[1:]), sep='\\n')"
    arguments = ["--cert_dir", str(keys), "--logdir", str(pool), "--port", "1"]
    block = Block("name", (sys.executable, "-c", unpack, *arguments), pool, secrets=packed(keys))
    assert Jobs(Site(shared=False)).submit(block) == "7"
    (script,) = pool.iterdir()
    assert script.stat().st_mode & 0o077 == 0
    assert f"#SITE {os.devnull}" in script.read_text()
    shutil.rmtree(keys)
    moved = shutil.move(script, node / "script")
    pool.rmdir()
    done = subprocess.run(["bash", moved], capture_output=True, text=True, check=True, cwd=node)
    assert done.stderr == ""
    cert_dir, logdir = done.stdout.split("\n")[1:4:2]
    assert all(Path(folder).is_relative_to(node) for folder in (cert_dir, logdir))
    assert [(Path(cert_dir) / name).read_text() for name in FILES] == [f"the '{name}'\n" for name in FILES]
    assert Path(cert_dir).stat().st_mode & 0o777 == 0o700


def test_a_shared_file_system_needs_no_keys_in_the_job_script(tmp_path: Path) -> None:
    block = Block("name", ("true",), tmp_path)
    script = Jobs(Site()).script(block)
    assert "export" not in script
    assert f"cd -- {tmp_path}" in script


def test_drivers_that_share_a_store_compute_a_label_once_wherever_workers_are(tmp_path: Path) -> None:
    request = LabelRequest(
        reference=psiflow.reference("toy"),
        structure=molecule("H2O"),
        labels=tmp_path / "labels",
        folder=tmp_path / "task",
    )
    one, other = Depot(), Depot()
    try:
        assert one.claim(request) is None
        ticket = opened(one, request)
        assert str(other.claim(request)) == f"process {os.getpid()} on {socket.gethostname()}"
        lost: Future[str] = Future()
        lost.set_exception(WorkerLost("it died"))
        one.ended(ticket, lost)
        assert other.claim(request) is None
        assert one.claim(request) is not None
    finally:
        other.close()
        assert one.claim(request) is None
        one.close()
    assert list((tmp_path / "labels").rglob("*.claim")) == []


@needs_namespaces
def test_a_label_that_another_campaign_computes_needs_no_worker(tmp_path: Path) -> None:
    request = LabelRequest(
        reference=psiflow.reference("toy"),
        structure=molecule("H2O"),
        labels=tmp_path / "labels",
        folder=tmp_path / "tasks" / "label",
    )
    with Context(elsewhere(tmp_path), folder=tmp_path) as context:
        with claimed(request.claim):
            told = context.run(request, timeout=PATIENCE)
        computed = context.run(request, timeout=PATIENCE)
    assert [cast(Labelled, one.value).computed_by is None for one in (told, computed)] == [False, True]
    assert not request.claim.exists()
