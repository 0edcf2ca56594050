"""Executors that start workers in blocks: whoever wrote one, its workers are guarded, and what ends them is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from ase.build import molecule
from psiflow_toys import campaigns
from psiflow_toys.waiting import PATIENCE, survivors, wait_until

import psiflow_core as psiflow
from psiflow_core.cli import machine
from psiflow_core.components import Pool, Spec
from psiflow_core.errors import OptionError, PoolFailed, WorkerLost
from psiflow_core.execution.blocks import _htex
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.processes import guard
from psiflow_core.processes.limits import Awake

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]

READ_ONLY = """unshare -m sh -c 'mount -t tmpfs -o ro tmpfs /dev/shm; exec "$@"' sh"""
"""A command under which shared memory cannot be written."""


def toy(before: str = "", under: str = "", **options: object) -> Spec:
    return psiflow.executor("toy-blocks", workers=1, before=before, under=under, **options)


def label(folder: Path, reference: Spec) -> LabelRequest:
    """The request of a label."""
    structure, labels = molecule("H2O"), folder / "labels"
    return LabelRequest(reference=reference, structure=structure, labels=labels, folder=folder / "task")


def pools_in(folder: Path) -> list[psutil.Process]:
    """Every guard of pools in a folder, with what it guards."""
    return [process for pool in folder.glob("*") for process in guard.guarding(pool)]


def test_an_executor_from_outside_needs_to_say_only_how_a_block_is_started(tmp_path: Path) -> None:
    with Context(toy(), folder=tmp_path) as context:
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
        assert context.capacity.slots == {"all": 1}
        assert context.resources("label").silence == 600.0


DRIVER = """
import sys
import psiflow_core as psiflow
from psiflow_core.execution.tasks.label import LabelRequest
from ase.build import molecule
if __name__ == "__main__":
    folder, delay = sys.argv[1], float(sys.argv[2])
    executor = psiflow.executor("toy-blocks", workers=1, silence=8.0, task_walltime=14.0)
    with psiflow.Context(executor, folder=folder) as context:
        task = LabelRequest(
            reference=psiflow.reference("toy", delay=delay), structure=molecule("H2O"),
            labels=folder + "/labels", folder=folder + "/task",
        )
        print(context.run(task).failure, flush=True)
"""


def driver(folder: Path, delay: float) -> subprocess.Popen[str]:
    """A driver with one task under way, which takes so many seconds."""
    script = folder / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(folder), str(delay)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_until((folder / "task").exists)
    return started


def test_nothing_of_an_executor_from_outside_outlives_a_killed_driver(tmp_path: Path) -> None:
    killed = driver(tmp_path, delay=60)
    started = pools_in(tmp_path / "pools")
    assert len(started) >= 5  # two guards, an interchange, a manager, a worker
    killed.kill()
    killed.wait()
    assert not survivors(started)
    assert not {process.pid for process in started} & {process.pid for process in guard.orphans()}


def test_a_task_that_was_suspended_with_its_driver_goes_on_where_it_was(tmp_path: Path) -> None:
    """For longer than it may be silent, than it may run, and than Parsl's programs wait for each other."""
    suspended = driver(tmp_path, delay=6)
    everything = [psutil.Process(suspended.pid), *pools_in(tmp_path / "pools")]
    guards = [process for process in everything if "psiflow_core.processes.guard" in process.cmdline()]
    for process in everything:
        process.suspend()
    time.sleep(17)
    for process in (*guards, None, *everything):
        process.resume() if process else time.sleep(1.5)  # guards look before anything else moves
    assert suspended.communicate(timeout=PATIENCE)[0] == "None\n"


CLIENTS_OF_A_WORKER = """
import json, sys
from psiflow_core.execution.blocks._awake import CLIENTS, import_parsl
import_parsl()
import parsl.executors.high_throughput.process_worker_pool
loaded = [name for name in CLIENTS if name in sys.modules]
import boto3
print(json.dumps([loaded, "parsl" in sys.modules]))
"""


def test_workers_import_parsl_without_the_client_libraries_of_clouds_and_tasks_can_import_these() -> None:
    pytest.importorskip("boto3", reason="no client library is installed here")
    done = subprocess.run([sys.executable, "-c", CLIENTS_OF_A_WORKER], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], True]


def test_a_clock_that_counts_time_awake_leaves_out_long_pauses() -> None:
    clock = Awake(longest=0.01)
    time.sleep(0.2)
    assert clock() <= 0.01
    assert clock() <= 0.02


def test_an_executor_that_goes_around_the_base_class_is_refused(tmp_path: Path) -> None:
    with Context("toy-unguarded", folder=tmp_path) as context:
        with pytest.raises(OptionError, match=r"'toy-unguarded' builds its own HighThroughputExecutor.*blocks\.Blocks"):
            context.run(IdleRequest(), timeout=PATIENCE)
        assert not pools_in(tmp_path / "pools")


UNGUARDED = """
import subprocess, sys, time
from psiflow_core.processes import guard
guard.mark_driver()
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True).pid, flush=True)
time.sleep(60)
"""


def test_what_a_dead_driver_has_left_without_a_guard_is_found() -> None:
    killed = subprocess.Popen([sys.executable, "-c", UNGUARDED], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    left = psutil.Process(int(killed.stdout.readline()))
    try:
        assert left.pid not in {process.pid for process in guard.orphans()}
        killed.kill()
        killed.wait()
        (finding,) = machine.stale_processes()
        assert finding.verdict == "bad"
        assert str(left.pid) in finding.fix
    finally:
        left.kill()


def test_a_driver_that_another_driver_has_started_is_none_of_its_remains(tmp_path: Path) -> None:
    outer = f"{UNGUARDED.partition('print')[0]}subprocess.run(sys.argv[1:])"
    inner = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", outer, sys.executable, "-c", inner], stdout=subprocess.PIPE)
    assert first.stdout is not None
    second = psutil.Process(int(first.stdout.readline()))
    guarded = subprocess.Popen([*guard.command(second.pid, tmp_path, "sleep"), *SLEEP])
    try:
        wait_until(psutil.Process(guarded.pid).children)
        first.kill()
        first.wait()
        assert not {second.pid, guarded.pid} & {process.pid for process in guard.orphans()}
    finally:
        second.kill()
        guarded.wait()


def test_a_command_does_not_outlive_its_guard(tmp_path: Path) -> None:
    guarded = subprocess.Popen([*guard.command(os.getpid(), tmp_path, "sleep"), *SLEEP])
    wait_until(psutil.Process(guarded.pid).children)
    children = psutil.Process(guarded.pid).children()
    guarded.kill()
    guarded.wait()
    assert not survivors(children)


def test_a_guard_on_another_machine_does_not_look_for_the_driver(tmp_path: Path) -> None:
    gone = subprocess.Popen(SLEEP)
    words = guard.command(gone.pid, tmp_path, "sleep")
    words[words.index("--table") + 1] = "another-machine"
    gone.kill()
    gone.wait()
    command = [*words, sys.executable, "-c", f"import time; time.sleep({4 * guard.PERIOD})"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (toy(before="echo 'module: command not found' >&2; exit 3"), r"exit code 3.*module: command not found"),
        (toy(under="no-such-launcher"), "no-such-launcher"),
        pytest.param(toy(under=READ_ONLY), "Read-only file system", id="no-shared-memory"),
    ],
)
def test_what_ends_blocks_at_once_is_told_in_its_own_words(executor: Spec, words: str, tmp_path: Path) -> None:
    if (
        "unshare" in executor.options["under"]
        and subprocess.run(f"{READ_ONLY} true", shell=True, check=False).returncode
    ):
        pytest.skip("no right to mount")
    with Context(executor, folder=tmp_path) as context:
        with pytest.raises(PoolFailed, match=rf"pool 'all' do not start: its last 3 blocks ended .*{words}"):
            context.run(IdleRequest(), timeout=PATIENCE)
        blocks = list((tmp_path / "pools").rglob("blocks/psi*.sh"))
        assert len(blocks) == 3, "it is not tried for ever"


def test_an_interchange_that_ends_at_once_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_htex, "INTERCHANGE", ["-c", "raise OSError('no port is free')"])
    with Context(toy(), folder=tmp_path) as context:
        with pytest.raises(PoolFailed, match=r"interchange of pool 'all' ended at its start: OSError: no port is free"):
            context.run(IdleRequest(), timeout=PATIENCE)
        monkeypatch.undo()
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None


def test_a_pool_that_has_failed_is_started_anew_once_it_is_mended(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    with Context(toy(before=f"test -e {mended} || exit 3"), folder=tmp_path) as context:
        with pytest.raises(PoolFailed):
            context.run(IdleRequest(), timeout=PATIENCE)
        mended.touch()
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None


def test_blocks_that_end_now_and_then_are_replaced(tmp_path: Path) -> None:
    before = f"echo block >> {tmp_path}/blocks; test $(wc -l < {tmp_path}/blocks) -ge 3 || exit 3"
    said: list[str] = []
    with Context(toy(before), folder=tmp_path) as context:
        assert context.run(IdleRequest(), timeout=PATIENCE, tell=said.append).failure is None
    told = [line for line in said if line.startswith("waiting for workers of pool 'all' (blocks: ")]
    assert any("2 ended, none answered)" in line for line in told), "whether the third is queued by then, or starts"


def test_a_campaign_whose_workers_do_not_start_says_what_it_waits_for_and_why_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = toy(before="echo 'no licence' >&2; exit 3")
    with Context(executor, folder=tmp_path) as context, pytest.raises(PoolFailed, match="no licence"):
        campaigns.learning().run(start=campaigns.water(), folder=tmp_path / "c", context=context)
    told = capsys.readouterr().err.splitlines()
    assert any("waiting for workers of pool 'all' (blocks: " in line for line in told)
    assert len(told) == len(set(told))


def test_workers_that_do_not_answer_in_time_are_told_by_what_their_blocks_do(tmp_path: Path) -> None:
    words = r"within 7 s: waiting for workers of pool 'all' \(blocks: 1 starting\)"
    with (
        Context(toy(before="sleep 600"), folder=tmp_path) as context,
        pytest.raises(WorkerLost, match=words),
    ):
        context.run(IdleRequest(), timeout=7)


WITNESS = """
import os, tempfile
class Witness:
    default_parameters = {}
    def __init__(self):
        raise ValueError(os.path.realpath(tempfile.gettempdir()))
"""


def test_workers_start_under_a_long_name_of_the_temporary_folder_and_write_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("scratch_of_a_job_" * 8)
    long.mkdir()
    (tmp_path / "witness.py").write_text(WITNESS)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with Context(toy(), folder=tmp_path) as context:
        witness = psiflow.reference("ase", calculator="witness:Witness")
        outcome = context.run(label(tmp_path, witness), timeout=PATIENCE)
    assert outcome.failure is not None
    assert str(long) in outcome.failure.message


def test_the_words_of_a_command_are_no_text() -> None:
    with pytest.raises(OptionError, match="words"):
        Pool("all", Path(), "python", driver=1)  # type: ignore[arg-type]


def test_a_guard_that_cannot_keep_what_is_said_guards_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = guard.command(os.getpid(), tmp_path / "file", "true")
    done = subprocess.run([*words, "true"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert "not kept" in done.stderr


def test_a_guard_that_is_asked_to_end_ends_its_command(tmp_path: Path) -> None:
    guarded = subprocess.Popen([*guard.command(os.getpid(), tmp_path, "sleep"), *SLEEP])
    wait_until(psutil.Process(guarded.pid).children)
    children = psutil.Process(guarded.pid).children()
    guarded.send_signal(signal.SIGTERM)
    guarded.wait()
    assert not survivors(children)
