"""What holds for every executor."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from ase import Atoms

from psiflow_core.components import Pool, Spec
from psiflow_core.environments import catalogue
from psiflow_core.errors import OptionError, PsiflowError
from psiflow_core.execution.blocks import Blocks
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.execution.tasks.survey import Surveyed, SurveyRequest
from psiflow_core.processes import guard
from psiflow_core.structures import Plain
from psiflow_core.testing.component import ComponentContract

DRIVER = """
import json, sys
import psiflow_core as psiflow
from psiflow_core.execution.tasks.survey import SurveyRequest
if __name__ == "__main__":
    name, options, folder = json.loads(sys.argv[1])
    with psiflow.Context(psiflow.executor(name, **options), folder=folder) as context:
        context.run(SurveyRequest(folder=folder + "/task", hold=3600.0))
"""
"""A driver with a task that does not end."""

NAMES = "psi"
"""The names of all jobs begin so."""

MOST = 3
"""Tasks that are tried at once."""


class ExecutorContract(ComponentContract):
    """Workers come, do their work, and nothing of them stays.

    Executors of `Blocks` have processes of their own, and some checks are for these alone.
    """

    patience: ClassVar[float] = 300.0
    """How long a task may take, its workers' start included. [s]"""
    refusal: ClassVar[float] = 30.0
    """How long workers with a senseless option are waited for. [s]"""
    shell: ClassVar[Collection[str]] = ()
    """Options that are lines of shell by their meaning."""

    def jobs(self) -> Collection[str]:
        """The names of psiflow's jobs that the scheduler has, waiting or running; none for blocks on this machine."""
        executor = self.build()
        if not isinstance(executor, Blocks) or not executor.remote:
            return ()
        return executor.scheduler(Pool("contract", Path(tempfile.gettempdir()), (), os.getpid())).find(NAMES)

    @classmethod
    def spec(cls, **changes: Any) -> Spec:
        """The executor with the options of this test, some of them changed."""
        return catalogue.spec("executor", cls.component.name, {**cls.options, **changes})

    @pytest.fixture
    def context(self, tmp_path: Path) -> Iterator[Context]:
        """Workers in a folder whose name a shell would take apart."""
        with Context(self.spec(), folder=tmp_path / "it's a folder & more") as context:
            yield context

    def test_it_builds_a_new_pool_each_time(self, tmp_path: Path) -> None:
        pools = [Pool("pool", tmp_path / name, (sys.executable,), os.getpid()) for name in ("first", "second")]
        first, second = (self.build().build(pool) for pool in pools)
        assert first is not second
        assert first.label == second.label == "pool"

    def test_slots_and_resources_are_sane(self) -> None:
        executor = self.build()
        resources = executor.resources()
        assert executor.slots() >= 1
        assert resources.cores >= 1
        assert resources.device in ("cpu", "cuda")
        limits = (resources.memory, resources.wall_time, resources.silence)
        assert all(limit is None or limit > 0 for limit in limits)

    def test_its_description_makes_the_same_pools(self) -> None:
        described = json.loads(json.dumps(Context(self.spec()).describe(), allow_nan=False))
        (one,) = map(Spec.from_plain, described.values())
        assert Context(one).describe() == described

    def test_no_option_takes_a_negative_number(self) -> None:
        taken = [name for name in self.component.model_fields if self._takes(name, -1)]
        assert not taken

    def test_a_task_runs_in_a_folder_of_any_name(self, context: Context, tmp_path: Path) -> None:
        folder = tmp_path / "it's a folder & more" / "task"
        seen = self._seen(context.run(SurveyRequest(folder=folder), self.patience))
        assert seen.threads == self.build().resources().cores
        assert (folder / seen.mark).exists()

    def test_several_tasks_run_at_once(self, context: Context, tmp_path: Path) -> None:
        number = min(self.build().slots(), MOST)
        if number < 2:
            pytest.skip("it has one slot with these options")
        desk = context.desk()
        for task in range(number):
            desk.submit(str(task), SurveyRequest(number=task, together=number, meeting=tmp_path / "meeting"))
        seen: list[Surveyed] = []
        deadline = time.monotonic() + self.patience
        while len(seen) < number and time.monotonic() < deadline:
            seen += [self._seen(outcome) for outcome in desk.completed()]
        assert max(one.began for one in seen) < min(one.ended for one in seen)
        assert len({(one.host, one.process) for one in seen}) == (number if self._has_processes() else 1)

    def test_a_task_that_ends_its_worker_is_lost_and_the_next_one_runs(self, context: Context, tmp_path: Path) -> None:
        self._only_with_processes()
        reference = catalogue.spec("reference", "ase", {"calculator": "psiflow_core.testing.fatal:Fatal"})
        request = LabelRequest(
            reference=reference, structure=Atoms("H"), labels=tmp_path / "labels", folder=tmp_path / "task"
        )
        failure = context.run(request, self.patience).failure
        assert failure is not None
        assert failure.reason == "lost worker"
        self._seen(context.run(SurveyRequest(), self.patience))

    def test_nothing_outlives_its_context(self, tmp_path: Path) -> None:
        before = set(self.jobs())
        with Context(self.spec(), folder=tmp_path) as context:
            self._seen(context.run(SurveyRequest(), self.patience))
            processes = _processes(tmp_path)
        self._wait_for_the_end(processes, before)

    def test_nothing_outlives_a_killed_driver_and_its_successor(self, tmp_path: Path) -> None:
        """What the driver cannot end itself, a driver that comes later in the same folder ends."""
        self._only_with_processes()
        before = set(self.jobs())
        given = json.dumps([self.component.name, self.options, str(tmp_path)])
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, given])
        try:
            self._wait(lambda: any((tmp_path / "task").glob("seen-*")), driver)
            processes = _processes(tmp_path)
        finally:
            driver.kill()
            driver.wait()
        with Context(self.spec(), folder=tmp_path) as context:
            self._seen(context.run(SurveyRequest(), self.patience))
        self._wait_for_the_end(processes, before)

    def test_no_option_reaches_a_shell_unquoted(self, tmp_path: Path) -> None:
        self._only_with_processes()
        mark = tmp_path / "mark"
        hostile = [f"x;touch {mark};'\"$(touch {mark})`touch {mark}`&", f"x\ntouch {mark}\n"]
        for name in [name for name in self.component.model_fields if name not in self.shell]:
            for text in hostile:
                for value in (text, [text], {"x": text}, {text: "x"}):
                    if self._takes(name, value):
                        self._try(tmp_path, {name: value})
                        assert not mark.exists(), f"{name}={value!r} has reached a shell"

    def _try(self, folder: Path, changes: Plain) -> None:
        """Start workers with senseless options, which may fail."""
        with (
            contextlib.suppress(PsiflowError),
            Context(self.spec(**changes), folder=folder / "hostile") as context,
        ):
            context.run(IdleRequest(), self.refusal)

    def _takes(self, name: str, value: object) -> bool:
        try:
            self.component.parse({**self.options, name: value})
        except OptionError:
            return False
        return True

    def _has_processes(self) -> bool:
        return issubclass(self.component, Blocks)

    def _only_with_processes(self) -> None:
        if not self._has_processes():
            pytest.skip("it has no processes of its own")

    def _seen(self, outcome: Outcome) -> Surveyed:
        assert outcome.failure is None, outcome.failure
        assert isinstance(outcome.value, Surveyed)
        return outcome.value

    def _wait_for_the_end(self, processes: list[psutil.Process], before: set[str]) -> None:
        self._wait(lambda: not any(map(_runs, processes)) and set(self.jobs()) <= before)

    def _wait(self, condition: Any, driver: subprocess.Popen[bytes] | None = None) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            assert driver is None or driver.poll() is None, "the driver has ended"
            assert time.monotonic() < deadline, f"not within {self.patience:.0f} s"
            time.sleep(0.1)


def _processes(folder: Path) -> list[psutil.Process]:
    """The guards of the pools in a folder on this machine, with all that they guard."""
    return [process for pool in (folder / "pools").glob("*") for process in guard.guarding(pool)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False
