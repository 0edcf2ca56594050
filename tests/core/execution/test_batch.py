"""Pools of a batch system: what they submit, give back, cancel and tell, on a queue that is a folder."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from ase.build import molecule
from psiflow_toys.batch import Queue
from psiflow_toys.waiting import PATIENCE, survivors, wait_until

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.errors import OptionError, PoolFailed
from psiflow_core.execution.blocks import PoolReport, _htex
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.workers import Desk


def batch(folder: Path, **options: object) -> Spec:
    """An executor whose queue is in this folder."""
    (folder / "queue").mkdir(parents=True, exist_ok=True)
    return psiflow.executor("toy-batch", queue=str(folder / "queue"), address="127.0.0.1", **options)


def slow(folder: Path, seconds: float = 600.0) -> LabelRequest:
    """The request of a label that takes so long."""
    reference = psiflow.reference("toy", delay=seconds)
    return LabelRequest(reference=reference, structure=molecule("H2O"), labels=folder / "labels", folder=folder)


def report(context: Context) -> PoolReport:
    (only,) = context._pools.report()
    return only


def submissions(folder: Path) -> list[str]:
    file = folder / "queue" / "submissions"
    return file.read_text().splitlines() if file.exists() else []


def say(folder: Path, name: str, words: str) -> Path:
    """Let the queue do something."""
    file = folder / "queue" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(words)
    return file


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes of all jobs."""
    found = []
    for file in (folder / "queue" / "jobs").glob("*/pid"):
        try:
            process = psutil.Process(int(file.read_text()))
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def started(desk: Desk, folder: Path, tasks: int) -> None:
    """Start so many slow tasks, and wait until they run."""
    for number in range(tasks):
        desk.submit(str(number), slow(folder / f"task-{number}"))
    wait_until(lambda: all((folder / f"task-{number}").exists() for number in range(tasks)))


def test_blocks_grow_with_the_tasks_and_are_given_back_when_they_are_idle(tmp_path: Path) -> None:
    with Context(batch(tmp_path, blocks=2, idle=1.0), folder=tmp_path / "with space") as context:
        assert context.capacity.slots == {"all": 2}
        desk = context.desk()
        for number in range(2):
            desk.submit(str(number), slow(tmp_path / str(number), seconds=1.0))
        wait_until(lambda: report(context).workers == 2)
        assert len(submissions(tmp_path)) == 2
        wait_until(lambda: not list(desk.completed()) and not desk.busy)
        wait_until(lambda: not report(context).blocks)
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
        assert len(submissions(tmp_path)) == 3
        jobs = processes_of(tmp_path)
    assert not survivors(jobs)


def test_a_long_queue_is_a_state_with_the_schedulers_words(tmp_path: Path) -> None:
    hold = say(tmp_path, "hold", "Priority")
    with Context(batch(tmp_path), folder=tmp_path) as context:
        desk = context.desk()
        desk.submit("waits", IdleRequest())
        wait_until(lambda: "1 in the queue: Priority" in context.waiting())
        assert "1 blocks in the queue (Priority)" in report(context).told
        hold.unlink()
        wait_until(lambda: [outcome.key for outcome in desk.completed()] == ["waits"])


def test_what_the_scheduler_refuses_is_told_at_once_after_one_submission(tmp_path: Path) -> None:
    say(tmp_path, "refuse", "invalid partition specified: gpuu")
    with Context(batch(tmp_path), folder=tmp_path) as context:
        with pytest.raises(PoolFailed, match="refuses the blocks of pool 'all': invalid partition specified: gpuu"):
            context.run(IdleRequest(), timeout=PATIENCE)
        assert len(submissions(tmp_path)) == 1


def test_a_job_whose_submission_had_no_answer_is_found_and_used(tmp_path: Path) -> None:
    say(tmp_path, "unanswered", "Socket timed out on send/recv operation")
    with Context(batch(tmp_path), folder=tmp_path) as context:
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
        assert len(submissions(tmp_path)) == 1
        jobs = processes_of(tmp_path)
    assert jobs
    assert not survivors(jobs)


def test_a_job_whose_submission_had_no_answer_is_cancelled_at_the_end(tmp_path: Path) -> None:
    hold, queue = say(tmp_path, "hold", "Priority"), tmp_path / "queue"
    say(tmp_path, "unanswered", "Socket timed out on send/recv operation")
    with Context(batch(tmp_path), folder=tmp_path) as context:
        context.desk().submit("waits", IdleRequest())
        wait_until(lambda: submissions(tmp_path))
    assert not Queue(queue).find("psi")
    assert hold.exists()


def test_blocks_that_end_before_their_workers_have_started_end_the_pool(tmp_path: Path) -> None:
    with (
        Context(batch(tmp_path, walltime=1), folder=tmp_path) as context,
        pytest.raises(PoolFailed, match="took no task: walltime=1 s was over when their workers had started; raise it"),
    ):
        context.run(IdleRequest(), timeout=PATIENCE)


def test_short_blocks_that_fail_are_told_in_their_own_words(tmp_path: Path) -> None:
    spec = batch(tmp_path, walltime=20, setup="echo no python here >&2; exit 3")
    with Context(spec, folder=tmp_path) as context, pytest.raises(PoolFailed, match="no python here"):
        context.run(IdleRequest(), timeout=PATIENCE)


def test_a_scheduler_that_refuses_one_more_block_does_not_end_those_that_run(tmp_path: Path) -> None:
    with Context(batch(tmp_path, blocks=2), folder=tmp_path) as context:
        desk = context.desk()
        started(desk, tmp_path, 1)
        say(tmp_path, "refuse", "job limit of the user")
        desk.submit("more", IdleRequest())
        wait_until(lambda: report(context).trouble == "job limit of the user")
        assert report(context).workers == 1


def test_a_scheduler_that_is_down_for_a_while_is_asked_again_after_growing_pauses(tmp_path: Path) -> None:
    down = say(tmp_path, "down", "Unable to contact the controller")
    with Context(batch(tmp_path), folder=tmp_path) as context:
        desk = context.desk()
        desk.submit("waits", IdleRequest())
        wait_until(lambda: "its scheduler says: Unable to contact the controller" in context.waiting())
        wait_until(lambda: len((tmp_path / "queue" / "asked").read_text().splitlines()) >= 4)
        asked = [float(when) for when in (tmp_path / "queue" / "asked").read_text().splitlines()]
        pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
        assert pauses[2] > 1.5 * pauses[0]
        down.unlink()
        wait_until(lambda: [outcome.key for outcome in desk.completed()] == ["waits"])
        assert not report(context).trouble


def test_a_scheduler_that_is_down_ends_no_task(tmp_path: Path) -> None:
    with Context(batch(tmp_path), folder=tmp_path) as context:
        desk = context.desk()
        desk.submit("label", slow(tmp_path / "task", seconds=6.0))
        wait_until((tmp_path / "task").exists)
        down = say(tmp_path, "down", "Unable to contact the controller")
        wait_until(lambda: bool(report(context).trouble))
        wait_until(lambda: [outcome.failure for outcome in desk.completed()] == [None])
        down.unlink()


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_batch import batch, slow
import psiflow_core as psiflow
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with psiflow.Context(batch(folder, blocks=3), folder=folder / "context") as context:
        desk = context.desk()
        for number in range(2):
            desk.submit(str(number), slow(folder / f"task-{number}"))
        for _ in iter(lambda: list(desk.completed()), None):
            pass
"""


def killed_driver(folder: Path, until: Callable[[], object], submitted: int = 1) -> None:
    """Start a driver with two tasks, and kill it at a condition, after so many submissions."""
    script = folder / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, str(script), str(folder), str(Path(__file__).parent)])
    wait_until(lambda: (until() and len(submissions(folder)) >= submitted) or driver.poll() is not None)
    driver.kill()
    driver.wait()


def living(folder: Path) -> set[str]:
    """The names of the jobs that wait or run."""
    return set(Queue(folder / "queue").find(""))


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_a_new_driver_cancels_the_jobs_of_a_dead_one(state: str, tmp_path: Path) -> None:
    hold = say(tmp_path, "hold", "Priority")
    if state == "running":
        hold.unlink()
    number = 2 if state == "waiting" else 1
    killed_driver(tmp_path, lambda: state == "waiting" or (tmp_path / "task-0").exists(), number)
    left = living(tmp_path)
    assert left
    with Context(batch(tmp_path), folder=tmp_path / "context") as context:
        context.desk().submit("new", IdleRequest())
        wait_until(lambda: not left & living(tmp_path))
        wait_until(lambda: living(tmp_path))
    assert not living(tmp_path)


def test_a_job_whose_id_its_driver_never_learned_is_found_by_its_name(tmp_path: Path) -> None:
    say(tmp_path, "hold", "Priority")
    lost = say(tmp_path, "lost", "yes")
    killed_driver(tmp_path, lambda: False)
    lost.unlink()
    (left,) = living(tmp_path)
    with Context(batch(tmp_path), folder=tmp_path / "context") as context:
        context.desk().submit("new", IdleRequest())
        wait_until(lambda: left not in living(tmp_path))


def test_leaving_cancels_every_job_running_or_waiting(tmp_path: Path) -> None:
    with Context(batch(tmp_path, blocks=2), folder=tmp_path) as context:
        desk = context.desk()
        started(desk, tmp_path, 1)
        say(tmp_path, "hold", "Priority")
        desk.submit("waits", IdleRequest())
        wait_until(lambda: len(living(tmp_path)) == 2)
        jobs = processes_of(tmp_path)
    assert not living(tmp_path)
    assert not survivors(jobs)


def test_a_manager_that_is_held_gets_no_task_and_another_block_takes_its_place(tmp_path: Path) -> None:
    with Context(batch(tmp_path, blocks=1), folder=tmp_path) as context:
        first = context.run(IdleRequest(), timeout=PATIENCE).worker
        (key,) = context._pools.started
        crew = context._pools.started[key].executor._crew
        assert context._pools.free(key) == 1
        (manager,) = [one.name for one in crew.of("0")]
        context._pools.hold(key, manager)
        assert context._pools.free(key) == 0
        assert context.run(IdleRequest(), timeout=PATIENCE).worker != first
        assert len(submissions(tmp_path)) == 2


def test_a_host_that_is_excluded_is_named_and_avoided(tmp_path: Path) -> None:
    with Context(batch(tmp_path, blocks=1), folder=tmp_path) as context:
        context.run(IdleRequest(), timeout=PATIENCE)
        (key,) = context._pools.started
        (host,) = report(context).blocks[0].hosts
        context._pools.exclude(key, host)
        context.desk().submit("waits", IdleRequest())
        wait_until(lambda: len(submissions(tmp_path)) >= 2)
        assert submissions(tmp_path)[-1].endswith(f"avoid={host}")
        assert f"excluded hosts: {host}" in report(context).told


def test_a_block_that_its_scheduler_has_ended_was_interrupted(tmp_path: Path) -> None:
    with Context(batch(tmp_path), folder=tmp_path) as context:
        started(context.desk(), tmp_path, 1)
        (key,) = context._pools.started
        (block,) = report(context).blocks
        assert not context._pools.interrupted(key, block.block), "it runs"
        Queue(tmp_path / "queue").cancel([block.job])
        wait_until(lambda: context._pools.interrupted(key, block.block))
        wait_until(lambda: len(submissions(tmp_path)) == 2)


def test_a_block_that_reaches_its_wall_time_is_replaced_while_tasks_want_it(tmp_path: Path) -> None:
    with Context(batch(tmp_path, walltime=30), folder=tmp_path) as context:
        first = context.run(IdleRequest(), timeout=PATIENCE).worker
        wait_until(lambda: not report(context).workers)
        again = context.run(IdleRequest(), timeout=PATIENCE)
        assert again.failure is None
        assert again.worker != first
        assert len(submissions(tmp_path)) == 2


def test_free_workers_count_tasks_as_soon_as_they_are_sent(tmp_path: Path) -> None:
    changes: list[float] = []
    with Context(batch(tmp_path, cores=2, workers=2), folder=tmp_path) as context:
        context._pools.watch(lambda: changes.append(time.monotonic()))
        context.run(IdleRequest(), timeout=PATIENCE)
        (key,) = context._pools.started
        assert changes
        assert context._pools.free(key) == 2
        desk = context.desk()
        desk.submit("one", slow(tmp_path / "one"))
        assert context._pools.free(key) == 1
        desk.submit("two", slow(tmp_path / "two"))
        assert context._pools.free(key) == 0


def test_workers_that_cannot_connect_end_and_tell_where_they_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_htex, "CONNECT_WITHIN", 2)
    elsewhere = psiflow.executor("toy-batch", queue=str(tmp_path / "queue"), address="192.0.2.1")
    with Context(elsewhere, folder=tmp_path) as context, pytest.raises(PoolFailed, match=r"192\.0\.2\.1"):
        context.run(IdleRequest(), timeout=PATIENCE)


def test_a_context_without_a_folder_keeps_pools_where_nodes_see_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pools = tmp_path / "home" / ".psiflow" / "pools"
    with Context(batch(tmp_path)) as context:
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
        assert list(pools.glob("*/all-*/jobs"))
    assert not list(pools.iterdir())
    with Context(batch(tmp_path, walltime=1)) as context, pytest.raises(PoolFailed):
        context.run(IdleRequest(), timeout=PATIENCE)
    assert list(pools.glob("*/all-*/jobs")), "its logs may say why"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"walltime": "two hours"}, "not a time; write HH:MM:SS, D-HH:MM:SS or seconds"),
        ({"walltime": "1:30"}, "not a time"),
        ({"memory": 4, "memory_per_worker": 3, "workers": 2, "cores": 2}, "share memory=4 GiB of a node"),
        ({"idle": "soon"}, "not a time"),
        ({"silence": "00:00:00"}, "greater than 0"),
        ({"blocks": 1, "min_blocks": 2}, "min_blocks=2 is more than blocks=1"),
        ({"nodes": 3, "nodes_per_task": 2}, "give 1 or nodes=3"),
        ({"device": "cuda"}, "needs gpus"),
        ({"cores": 4, "workers": 3, "cores_per_worker": 2}, "share cores=4 of a node"),
        ({"encrypted": False}, "anyone on the network"),
        ({"directives": ["--x\n--y"]}, "line break"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_submitted(
    options: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=words):
        batch(tmp_path, **options)


def test_an_address_that_this_host_cannot_find_is_told(tmp_path: Path) -> None:
    executor = psiflow.executor("toy-batch", queue=str(tmp_path), address="no-such-host.invalid")
    with Context(executor, folder=tmp_path) as context, pytest.raises(OptionError, match=r"no-such-host\.invalid"):
        context.run(IdleRequest(), timeout=PATIENCE)


@pytest.mark.parametrize(("written", "seconds"), [("1:30:00", 5400), ("2-00:00:30", 172830), (600, 600), ("600", 600)])
def test_a_walltime_is_written_as_users_of_batch_systems_write_it(
    written: object, seconds: float, tmp_path: Path
) -> None:
    assert batch(tmp_path, walltime=written).options["walltime"] == seconds
