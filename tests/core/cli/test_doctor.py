"""`psiflow doctor`: healthy machines are told so, and what is ill is named with its cure."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest
from ase import Atoms
from typer.testing import CliRunner

from psiflow_core.cli import app, diagnosis, machine
from psiflow_core.components import LabelTask, Reference
from psiflow_core.execution.blocks import _htex
from psiflow_core.processes import guard
from psiflow_core.registry.plugins import Registered, Registry, registry
from psiflow_core.structures import Label


class Engineless(Reference):
    """A reference whose package nobody has."""

    name: ClassVar[str] = "engineless"
    engine: ClassVar[str] = "no_such_package"

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        raise NotImplementedError


def test_every_engine_is_imported_on_a_worker_that_answers(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--folder", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "✘" not in result.output
    assert "✔ workers: start and answer" in result.output
    for registered in registry().all():
        component = registered.component
        if component.kind in diagnosis.WORK:
            assert f"✔ {component.kind} {component.name}: {component.engine or component.program}" in result.output


def test_a_component_that_is_not_installed_is_a_failing_line_with_its_fix(tmp_path: Path) -> None:
    wanted = ["--potential", "nonesuch", "--reference", "toy"]
    result = CliRunner().invoke(app, ["doctor", "--folder", str(tmp_path), *wanted])
    assert result.exit_code == 1
    assert "✘ potential nonesuch: no potential 'nonesuch'" in result.output
    assert "psiflow plugins --kind potential" in result.output
    assert "✔ reference toy: works" in result.output
    assert "sampler ase:" not in result.output, "only what is wanted is looked at"


def test_an_engine_that_cannot_be_imported_is_a_failing_line_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    from psiflow_core.execution.context import Context
    from psiflow_core.execution.tasks import engine

    here = Registry()
    here.register(SimpleNamespace(), "nothing", "psiflow-nothing", "1")
    registered = Registered(Engineless, "psiflow-engineless", "1")
    monkeypatch.setattr(engine, "registry", lambda: SimpleNamespace(find=lambda kind, name: registered))
    with Context("threads") as context:
        finding = diagnosis.engine(context, registered)
    assert finding.verdict == "bad"
    assert "needs 'no_such_package'" in finding.found
    assert "pip install --force-reinstall psiflow-engineless" in finding.fix


def test_workers_that_cannot_start_leave_the_engines_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "PATIENCE", 0.0)
    found = {finding.check: finding for finding in diagnosis.workers({"potential": "toy"})}
    assert found["workers"].verdict == "bad"
    assert found["workers"].fix
    assert found["potential toy"].verdict == "open"


def test_workers_that_end_at_once_are_told_by_their_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_htex, "MANAGER", ["-c", 'raise OSError("AF_UNIX path too long")'])
    found = {finding.check: finding for finding in diagnosis.workers({"potential": "toy"})}
    assert found["workers"].verdict == "bad"
    assert "OSError: AF_UNIX path too long" in found["workers"].found
    assert "firewall" not in found["workers"].fix


def test_a_folder_that_cannot_be_written_is_a_failing_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = {finding.check: finding for finding in machine.campaign_folder(tmp_path / "file" / "campaign")}
    assert found["folder"].verdict == "bad"
    assert "--folder" in found["folder"].fix


def test_a_folder_without_locks_is_a_failing_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda stream, how: None)  # a file system that ignores locks
    found = {finding.check: finding for finding in machine.campaign_folder(tmp_path)}
    assert found["locks"].verdict == "bad"
    assert found["locks"].fix


def test_the_examination_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    verdicts = {finding.verdict for finding in machine.campaign_folder(tmp_path / "not" / "yet")}
    assert verdicts == {"good"}
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_and_a_full_memory_are_failing_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DISK", 1e12)
    monkeypatch.setattr(machine, "MEMORY", 1e12)
    found = {finding.check: finding for finding in [*machine.campaign_folder(tmp_path), *machine.machine()]}
    assert found["disk"].verdict == found["memory"].verdict == "bad"


def test_a_broken_plugin_is_a_failing_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> object:
        raise ImportError("libcurrent.so.7 is missing")

    point = SimpleNamespace(name="kaput", value="psiflow_kaput", dist=None, load=fails)
    monkeypatch.setattr(diagnosis, "registry", lambda: Registry().load([point]))  # type: ignore[list-item]
    (finding,) = diagnosis.plugins()
    assert finding.verdict == "bad"
    assert "libcurrent.so.7" in finding.found


def test_processes_that_outlived_their_driver_are_found(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    driver = subprocess.Popen(sleep)
    guarded = subprocess.Popen([*guard.command(driver.pid, tmp_path, "sleep"), *sleep])
    process = psutil.Process(guarded.pid)
    try:
        while not process.children():
            assert guarded.poll() is None
        assert guarded.pid not in {orphan.pid for orphan in guard.orphans()}
        process.send_signal(signal.SIGSTOP)  # it can no longer see that its driver dies
        driver.kill()
        driver.wait()
        (finding,) = machine.stale_processes()
        assert finding.verdict == "bad"
        assert str(guarded.pid) in finding.fix
        assert str(process.children()[0].pid) in finding.fix
    finally:
        for member in guard.family(guarded.pid):
            member.kill()
        guarded.wait()
