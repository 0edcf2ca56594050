"""Two tasks on one node do not share cores, nor do the programs that they start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from psiflow_core.processes import cores


def test_workers_divide_the_cores_that_they_were_given() -> None:
    shares = [cores.share(rank, 3, [4, 5, 6, 7, 8, 9, 10], granted=7) for rank in range(3)]
    assert shares == [[4, 5], [6, 7], [8, 9]]


def test_hardware_threads_belong_to_the_cores_that_were_given() -> None:
    assert cores.share(1, 2, [0, 1, 2, 3, 16, 17, 18, 19], granted=4) == [16, 17, 18, 19]


@pytest.mark.parametrize(
    ("count", "allowed", "granted"),
    [(1, 4, 4), (2, 64, 4), (4, 2, 4)],
    ids=["one worker", "a node that does not confine its jobs", "fewer cores than workers"],
)
def test_where_it_cannot_be_told_no_worker_is_restricted(count: int, allowed: int, granted: int) -> None:
    assert cores.share(0, count, range(allowed), granted) == []


WORKER = """
import os
import numpy as np
from psiflow_core.processes import cores
np.ones((64, 64)) @ np.ones((64, 64))
taken = cores.take()
print(sorted(taken) == sorted(os.sched_getaffinity(0)), *taken)
threads = {tuple(os.sched_getaffinity(int(one))) for one in os.listdir("/proc/self/task")}
print(threads == {taken})
"""

needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="this machine has one core"
)


@needs_two_cores
def test_a_worker_keeps_all_its_threads_on_its_cores() -> None:
    own = sorted(os.sched_getaffinity(0))
    environment = {**os.environ, cores.GRANTED: str(len(own)), cores.RANK: "1", cores.COUNT: "2"}
    done = subprocess.run([sys.executable, "-c", WORKER], env=environment, capture_output=True, text=True, check=True)
    taken, threads = done.stdout.splitlines()
    assert taken == " ".join(["True", *map(str, own[len(own) // 2 : 2 * (len(own) // 2)])])
    assert threads == "True"


RANKS = """
import subprocess, sys
from psiflow_core.processes import cores
print(*cores.take())
show = "import os; open(str(os.getpid()), 'w').write(' '.join(map(str, sorted(os.sched_getaffinity(0)))))"
subprocess.run(["mpirun", "--oversubscribe", "-n", "2", sys.executable, "-c", show], check=True)
"""
"""Each rank writes a file of its own: `mpirun` may mix the lines of two."""


@needs_two_cores
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_the_ranks_of_mpi_stay_on_the_cores_of_their_worker(tmp_path: Path) -> None:
    own = sorted(os.sched_getaffinity(0))
    environment = {**os.environ, cores.GRANTED: str(len(own)), cores.RANK: "1", cores.COUNT: "2"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    second = " ".join(map(str, own[len(own) // 2 : 2 * (len(own) // 2)]))
    worker = [sys.executable, "-c", RANKS]
    done = subprocess.run(worker, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == second
    assert [rank.read_text() for rank in tmp_path.iterdir()] == [second, second]
