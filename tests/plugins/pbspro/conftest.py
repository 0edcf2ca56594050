"""A stand-in for PBS on the path: no real server is here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from psiflow_toys import jobs
from psiflow_toys.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of its state. A file `down` in it ends the service, `no_history` its memory."""
    state = tmp_path / "server"
    state.mkdir()
    commands = {name: f"pbs:{name}" for name in ("qsub", "qstat", "qselect", "qdel")}
    jobs.install(commands, Path(__file__).parent, tmp_path / "bin", state)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield state
    every = jobs.Jobs(state)
    for number in every.all():
        every.end(number, "deleted")
    wait_until(lambda: all(job["ended"] for job in every.all().values()))
