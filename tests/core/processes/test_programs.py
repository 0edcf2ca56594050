"""An external program runs as it is told, is ended when it takes too much, and leaves no process behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from psiflow_toys.waiting import survivors, wait_until

from psiflow_core.components import Resources
from psiflow_core.errors import ReferenceFailed
from psiflow_core.processes.programs import Allowance, Limited, Program, last_words

FOREVER = 3600
"""Longer than any test waits. [s]"""

UNLIMITED = Resources()

HANGS = f"echo I begin; echo $$ > started; sleep {FOREVER}"
SPINS = "echo I begin; echo $$ > started; while :; do :; done"
FORKS = f"sleep {FOREVER} & echo $! > started; (setsid sleep {FOREVER} & echo $! >> started); "
"""Children in the program's group and out of it, of which the second has lost its parent."""
STUBBORN = f"trap '' TERM; {FORKS} while :; do sleep 0.1; done"
EATS = """
import os, time
open("started", "w").write(str(os.getpid()))
held = bytearray(600 * 2**20)
held[::4096] = b"x" * len(held[::4096])
time.sleep(3600)
"""


class OnceStarted:
    """Limits that begin to count when a program has written down so many processes: however slow the machine is."""

    memory = None

    def __init__(self, folder: Path, count: int, wall_time: float | None = None, silence: float | None = None) -> None:
        self._file, self._count = folder / "started", count
        self._wall_time, self._silence = wall_time, silence

    @property
    def wall_time(self) -> float | None:
        return self._wall_time if self._is_on else None

    @property
    def silence(self) -> float | None:
        return self._silence if self._is_on else None

    @property
    def _is_on(self) -> bool:
        return self._file.is_file() and self._file.read_text().count("\n") == self._count


def run(folder: Path, words: list[str], limits: Limited = UNLIMITED, **options: object) -> int:
    program = Program("the toy", words, **options)  # type: ignore[arg-type]
    return program.run(folder, folder / "output.txt", Allowance(limits))


def failure_of(folder: Path, words: list[str], limits: Limited) -> ReferenceFailed:
    with pytest.raises(ReferenceFailed) as failure:
        run(folder, words, limits, patience=0.5)
    return failure.value


def started(folder: Path) -> list[int]:
    """The numbers of the processes that a program has written down."""
    numbers = [int(word) for word in (folder / "started").read_text().split()]
    assert numbers
    return numbers


def test_a_program_runs_in_its_folder_and_what_it_says_is_kept(tmp_path: Path) -> None:
    shell = "pwd; echo $WORD >&2; exit 3"
    assert run(tmp_path, ["sh", "-c", shell], environment={"WORD": "told"}) == 3
    assert (tmp_path / "output.txt").read_text().split() == [str(tmp_path), "told"]


def test_a_program_that_a_signal_ends_says_which(tmp_path: Path) -> None:
    assert run(tmp_path, ["sh", "-c", "kill -SEGV $$"]) == -signal.SIGSEGV


def test_a_program_that_does_not_start_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReferenceFailed, match=r"the toy cannot be started .*no-such-program.*; set command") as failure:
        run(tmp_path, ["no-such-program"], remedy="set command")
    assert failure.value.reason == "engine"


@pytest.mark.parametrize(
    ("shell", "limits", "reason", "said"),
    [
        (HANGS, {"wall_time": 1.0}, "wall time", "ran out of its 1 s of wall time; its last output: I begin; see /"),
        (HANGS, {"silence": 1.0}, "hung", "has done nothing for .*its last output: I begin"),
        (SPINS, {"wall_time": 6.0, "silence": 5.0}, "wall time", "ran out of its 6 s"),
    ],
)
def test_a_program_that_takes_too_much_is_ended_and_the_reason_is_told(
    shell: str, limits: dict[str, float], reason: str, said: str, tmp_path: Path
) -> None:
    failure = failure_of(tmp_path, ["sh", "-c", shell], OnceStarted(tmp_path, 1, **limits))
    assert failure.reason == reason
    assert re.search(said, str(failure)), failure
    assert not survivors(started(tmp_path))


def test_a_program_that_eats_the_memory_is_ended(tmp_path: Path) -> None:
    own = psutil.Process().memory_info().rss / 2**30  # the worker's counts too
    failure = failure_of(tmp_path, [sys.executable, "-c", EATS], Resources(memory=own + 0.3))
    assert failure.reason == "memory"
    assert re.search("the toy used .*GiB that its pool allows.*it printed nothing", str(failure))
    assert not survivors(started(tmp_path))


def test_the_time_of_one_program_counts_for_the_next(tmp_path: Path) -> None:
    allowance = Allowance(Resources(wall_time=1.0))
    wait_until(lambda: allowance.now > 1.0)
    with pytest.raises(ReferenceFailed, match="out of its 1 s"):
        Program("the toy", ["sleep", str(FOREVER)]).run(tmp_path, tmp_path / "output.txt", allowance)


@pytest.mark.parametrize("shell", [FORKS + f"sleep {FOREVER}", STUBBORN])
def test_a_program_is_ended_with_all_that_it_has_started(shell: str, tmp_path: Path) -> None:
    failure_of(tmp_path, ["sh", "-c", shell], OnceStarted(tmp_path, 2, wall_time=0.5))
    assert len(started(tmp_path)) == 2
    assert not survivors(started(tmp_path))


def test_what_a_program_leaves_behind_when_it_ends_by_itself_is_ended(tmp_path: Path) -> None:
    assert run(tmp_path, ["sh", "-c", FORKS + "exit 0"]) == 0
    assert not survivors(started(tmp_path))


WORKER = """
import sys
from pathlib import Path
from psiflow_core.components import Resources
from psiflow_core.processes.programs import Allowance, Program
folder = Path(sys.argv[1])
Program("the toy", ["sh", "-c", sys.argv[2]]).run(folder, folder / "output.txt", Allowance(Resources()))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_does_not_outlive_a_worker_that_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path), f"echo $$ > started; exec sleep {FOREVER}"]
    worker = subprocess.Popen(command, env=dict(os.environ), text=True)
    wait_until(lambda: (tmp_path / "started").is_file() and (tmp_path / "started").read_text(), worker)
    (program,) = (psutil.Process(one) for one in started(tmp_path))
    worker.send_signal(number)
    worker.wait()
    assert not survivors([program])


def test_last_words_are_the_last_lines_that_say_something() -> None:
    assert last_words("first\n  second \n\n*** ***\nthird\n-----\n", count=2) == "second / third"
    assert last_words("\n") == "it printed nothing"
    assert "\x1b" not in last_words("\x1b[31mred")
