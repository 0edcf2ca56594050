"""Pools of workers: what they are given, what is told of failures, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from ase.build import molecule
from psiflow_toys.waiting import PATIENCE, survivors, wait_until

import psiflow_core as psiflow
from psiflow_core.builtin.executors import Local
from psiflow_core.components import Pool, Spec
from psiflow_core.environments.environment import here
from psiflow_core.errors import OptionError, PluginNotFound
from psiflow_core.execution import workers as workers_module
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import Idled, IdleRequest
from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.execution.workers import Desk
from psiflow_core.processes import guard


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    executor = psiflow.executor("local", workers=2, cores_per_worker=3)
    with Context(executor, folder=tmp_path_factory.mktemp("pools")) as context:
        yield context


def label(reference: Spec, folder: Path) -> LabelRequest:
    """The request of a label."""
    structure, labels = molecule("H2O"), folder / "labels"
    return LabelRequest(reference=reference, structure=structure, labels=labels, folder=folder / "task")


def process_of(outcome: Outcome) -> psutil.Process:
    return psutil.Process(int(outcome.worker.split(":")[1]))


def processes(context: Context) -> list[psutil.Process]:
    return [process for pool in context._pools.started.values() for process in guard.guarding(pool.folder)]


def outcomes(desk: Desk, number: int, patience: float = PATIENCE) -> dict[str, Outcome]:
    """So many outcomes, by key."""
    found: dict[str, Outcome] = {}
    deadline = time.monotonic() + patience
    while len(found) < number:
        assert time.monotonic() < deadline, f"only {len(found)} of {number} tasks have ended"
        found |= {outcome.key: outcome for outcome in desk.completed()}
    return found


def test_by_default_one_pool_serves_all_work() -> None:
    capacity = Context(psiflow.executor("local", workers=3)).capacity
    assert len(set(capacity.pool_of.values())) == 1
    assert list(capacity.slots.values()) == [3]


def test_each_kind_of_work_may_have_a_pool_of_its_own() -> None:
    wide = psiflow.executor("local", workers=1, cores_per_worker=4)
    context = Context(psiflow.executor("local", workers=2), label=wide)
    pools = context.capacity.pool_of
    assert pools["train"] == pools["sample"] != pools["label"]
    assert context.capacity.slots == {pools["train"]: 2, pools["label"]: 1}
    assert context.resources("label").cores == 4
    assert context.resources("train").cores == 1


def test_the_same_executor_given_twice_is_one_pool_and_an_equal_one_is_another() -> None:
    shared = psiflow.executor("local", workers=1)
    together = Context(train=shared, sample=shared, label=psiflow.executor("local", workers=1))
    assert together.capacity.pool_of["train"] == together.capacity.pool_of["sample"]
    assert len(together.capacity.slots) == 2


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({"workers": 5, "gpus": 2}, ["0,-1", "1,-1", "0,-1", "1,-1", "0,-1"]),
        ({"workers": 2, "gpus": 4}, ["0,-1", "1,-1"]),
        ({"gpus": 2}, ["0,-1", "1,-1"]),
        ({"workers": 3}, ["0,-1", "0,-1", "0,-1"]),
    ],
)
def test_workers_share_gpus_in_turn(options: dict[str, Any], gpus: list[str], tmp_path: Path) -> None:
    executor = Local(device="cuda", **options)
    built = executor.build(Pool("all", tmp_path, (sys.executable,), driver=os.getpid()))
    assert built.available_accelerators == gpus
    assert built.workers_per_node == executor.slots() == len(gpus)


def test_workers_without_gpus_are_given_none(tmp_path: Path) -> None:
    built = Local(workers=3).build(Pool("all", tmp_path, (sys.executable,), driver=os.getpid()))
    assert built.available_accelerators == []
    assert built.workers_per_node == 3


WITNESS = """
import os, time
from pathlib import Path
class Witness:
    default_parameters = {}
    def __init__(self, folder):
        (Path(folder) / f"{os.getpid()}").touch()
        deadline = time.monotonic() + 300
        while len(list(Path(folder).iterdir())) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        raise ValueError(f"GPU {os.environ['CUDA_VISIBLE_DEVICES']}")
"""


def test_each_gpu_of_a_machine_has_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of two GPUs, as Parsl sees it: it asks ``nvidia-smi -L``."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'GPU 0'\necho 'GPU 1'\n")
    smi.chmod(0o755)
    (tmp_path / "witness.py").write_text(WITNESS)
    (tmp_path / "seen").mkdir()
    monkeypatch.setenv("PATH", str(smi.parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    witness = psiflow.reference("ase", calculator="witness:Witness", parameters={"folder": str(tmp_path / "seen")})
    executor = psiflow.executor("local", workers=4, device="cuda", gpus=2)
    with Context(executor, folder=tmp_path / "pools") as context:
        desk = context.desk()
        for number in range(4):
            desk.submit(str(number), label(witness, tmp_path / str(number)))
        found = outcomes(desk, 4).values()
    assert len({outcome.worker for outcome in found}) == 4
    said = [outcome.failure.message.rpartition(" ")[2] for outcome in found if outcome.failure]
    assert sorted(said) == ["0,-1", "0,-1", "1,-1", "1,-1"]


def test_what_is_no_executor_is_refused() -> None:
    with pytest.raises(OptionError, match="takes an executor, not a sampler"):
        Context(label=psiflow.sampler("ase"))
    with pytest.raises(PluginNotFound, match="local"):
        Context("lokal")


def test_a_context_that_runs_nothing_starts_nothing(tmp_path: Path) -> None:
    with Context(folder=tmp_path / "pools") as context:
        assert context.describe()
        assert not list(context.desk().completed(timeout=0.1))
    assert not (tmp_path / "pools").exists()


def test_workers_are_given_their_cores(workers: Context) -> None:
    outcome = workers.run(IdleRequest(), timeout=PATIENCE)
    assert outcome.value == Idled(cores=3)
    environment = process_of(outcome).environ()
    assert {environment[name] for name in guard.THREAD_VARIABLES} == {"3"}


def test_a_task_that_raises_ends_in_data(workers: Context, tmp_path: Path) -> None:
    failing = psiflow.reference("toy", fail_fraction=1.0)
    outcome = workers.run(label(failing, tmp_path), timeout=PATIENCE)
    assert outcome.value is None
    assert outcome.failure is not None
    assert outcome.failure.type == "ReferenceFailed"
    assert outcome.failure.reason == "unconverged"
    assert outcome.failure.message == "this structure is one of those that the toy fails on"
    assert "reference.py" in outcome.failure.trace
    assert outcome.seconds > 0


def test_a_component_that_is_nowhere_is_refused_by_its_name(workers: Context, tmp_path: Path) -> None:
    with pytest.raises(PluginNotFound, match="no environment can run reference 'nosuch'"):
        workers.run(label(Spec("reference", "nosuch", {}), tmp_path), timeout=PATIENCE)


def test_a_component_that_a_worker_does_not_have_fails_by_its_name(
    workers: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "choose", lambda needs: here())  # as if it had been there a moment ago
    outcome = workers.run(label(Spec("reference", "vanished", {}), tmp_path), timeout=PATIENCE)
    assert outcome.failure is not None
    assert outcome.failure.type == "PluginNotFound"
    assert "vanished" in outcome.failure.message


def test_a_label_is_found_before_it_is_computed(workers: Context, tmp_path: Path) -> None:
    task = label(psiflow.reference("toy"), tmp_path)
    first = workers.run(task, timeout=PATIENCE)
    second = workers.run(task, timeout=PATIENCE)
    assert first.value == Labelled(cached=False)
    assert second.value == Labelled(cached=True)


def test_outcomes_come_under_their_keys_as_they_end(workers: Context, tmp_path: Path) -> None:
    slow = psiflow.reference("toy", delay=1.0)
    desk = workers.desk()
    desk.submit("slow", label(slow, tmp_path))
    for number in range(20):
        desk.submit(f"quick-{number}", IdleRequest())
    found = list(outcomes(desk, 21))
    assert found[-1] == "slow"
    assert set(found) == {"slow", *(f"quick-{number}" for number in range(20))}
    assert not list(desk.completed(timeout=0.0))


def test_a_killed_worker_fails_its_task_and_the_pool_goes_on(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        victim = process_of(context.run(IdleRequest(), timeout=PATIENCE))
        slow = psiflow.reference("toy", delay=600)
        desk = context.desk()
        desk.submit("doomed", label(slow, tmp_path))
        wait_until((tmp_path / "task").exists)
        victim.kill()
        outcome = outcomes(desk, 1)["doomed"]
        assert outcome.failure is not None
        assert outcome.failure.reason == "lost worker"
        assert "it ran reference 'toy' of distribution psiflow-toys" in outcome.failure.message
        after = context.run(IdleRequest(), timeout=PATIENCE)
        assert after.failure is None
        assert process_of(after).pid != victim.pid


@pytest.mark.slow  # Parsl notices a lost manager by its heartbeats only
def test_a_killed_manager_fails_its_tasks_and_the_pool_goes_on_without_orphans(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        worker = process_of(context.run(IdleRequest(), timeout=PATIENCE))
        desk = context.desk()
        desk.submit("doomed", label(psiflow.reference("toy", delay=600), tmp_path))
        wait_until((tmp_path / "task").exists)
        worker.parent().kill()
        outcome = outcomes(desk, 1)["doomed"]
        assert outcome.failure is not None
        assert outcome.failure.reason == "lost worker"
        assert not survivors([worker])
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None


def test_a_killed_interchange_fails_what_was_sent_and_the_tasks_that_waited_go_on(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        context.run(IdleRequest(), timeout=PATIENCE)
        desk = context.desk()
        desk.submit("doomed", label(psiflow.reference("toy", delay=600), tmp_path))
        desk.submit("waits", IdleRequest())
        started = processes(context)
        interchange = [process for process in started if "HTEX interchange" in process.cmdline()[0]]
        assert interchange
        for process in interchange:
            process.kill()
        found = outcomes(desk, 2)
        assert found["doomed"].failure is not None
        assert found["doomed"].failure.reason == "lost worker"
        assert found["waits"].failure is None
    assert not survivors(started)


def test_leaving_ends_every_process_also_when_tasks_run(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=2), folder=tmp_path / "pools") as context:
        desk = context.desk()
        for number in range(4):
            slow = psiflow.reference("toy", delay=600)
            desk.submit(f"slow-{number}", label(slow, tmp_path / str(number)))
        wait_until(lambda: any((tmp_path / str(number) / "task").exists() for number in range(4)))
        started = processes(context)
        assert len(started) >= 5  # two guards, an interchange, a manager, two workers
    assert not survivors(started)


DRIVER = """
import sys, time
import psiflow_core as psiflow
from psiflow_core.execution.tasks.idle import IdleRequest
if __name__ == "__main__":
    with psiflow.Context(psiflow.executor("local", workers=2), folder=sys.argv[1]) as context:
        context.run(IdleRequest())
        print("ready", flush=True)
        time.sleep(600)
"""


def test_workers_whose_driver_was_killed_end_by_themselves(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    started = guard.guarding(tmp_path / "pools" / f"all-{driver.pid}")
    assert len(started) >= 5
    driver.kill()
    driver.wait()
    assert not survivors(started)


CAMPAIGN = """
import sys
import psiflow_core as psiflow
from ase.build import molecule
if __name__ == "__main__":
    learning = psiflow.OnlineLearning(
        potential=psiflow.potential("toy"), sampler=psiflow.sampler("ase"),
        reference=psiflow.reference("toy", delay=0.5), budget=psiflow.Budget(labels=1000),
        bootstrap=psiflow.Bootstrap(structures=1000),
    )
    with psiflow.Context(psiflow.executor("local", workers=2), folder=sys.argv[2]) as context:
        learning.run(start=molecule("H2O"), folder=sys.argv[1], context=context, progress=False)
"""


def test_a_driver_that_is_asked_to_end_ends_everything_and_says_how_to_go_on(tmp_path: Path) -> None:
    script, folder = tmp_path / "campaign.py", tmp_path / "c"
    script.write_text(CAMPAIGN)
    command: list[Any] = [sys.executable, script, folder, tmp_path]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list((folder / "labels").rglob("*.json"))) > 2)
    started = guard.guarding(tmp_path / "pools" / f"all-{driver.pid}")
    assert len(started) >= 5
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=PATIENCE)
    assert driver.returncode != 0
    assert not survivors(started)
    assert "run the same again to continue" in said


def test_a_folders_name_never_reaches_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a b; touch one & $(touch two) `touch three` {x} 'y'"
    with Context(psiflow.executor("local", workers=1), folder=folder) as context:
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
        assert list(folder.glob("pools/all-*")), "the pool's files are there all the same"
        started = processes(context)
    assert not survivors(started)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_context_that_ends_leaves_the_workers_of_another_in_the_same_folder_alone(tmp_path: Path) -> None:
    one, two = (Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") for _ in range(2))
    with one:
        worker = one.run(IdleRequest(), timeout=60).worker
        with two:
            assert two.run(IdleRequest(), timeout=60).failure is None
        assert one.run(IdleRequest(), timeout=60).worker == worker


def test_two_clients_of_one_context_do_not_take_each_others_outcomes(workers: Context) -> None:
    """Also under the same keys, and in threads of their own."""
    desks = [workers.desk() for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for number in range(10):
            list(threads.map(lambda desk, key=str(number): desk.submit(key, IdleRequest()), desks))
        found = list(threads.map(lambda desk: outcomes(desk, 10), desks))
    assert [set(one) for one in found] == [{str(number) for number in range(10)}] * 2
    assert not any(list(desk.completed(timeout=0.0)) for desk in desks)


def test_a_client_that_leaves_ends_no_task_of_another(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=2), folder=tmp_path / "pools") as context:
        leaves, stays = context.desk(), context.desk()
        leaves.submit("given up", label(psiflow.reference("toy", delay=600), tmp_path / "given up"))
        stays.submit("goes on", label(psiflow.reference("toy", delay=0.5), tmp_path / "goes on"))
        leaves.abandon()
        assert outcomes(stays, 1)["goes on"].failure is None


def test_workers_end_with_their_last_client(tmp_path: Path) -> None:
    with Context(psiflow.executor("local", workers=1), folder=tmp_path / "pools") as context:
        desk = context.desk()
        desk.submit("given up", label(psiflow.reference("toy", delay=600), tmp_path))
        wait_until((tmp_path / "task").exists)
        started = processes(context)
        desk.abandon()
        assert not survivors(started)
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
