"""A stand-in for LSF on the path: no real cluster is here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from psiflow_toys import jobs
from psiflow_toys.waiting import wait_until


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of its state. A file `down` in it ends the service; with `short_minutes`, minutes are seconds."""
    state = tmp_path / "cluster"
    state.mkdir()
    commands = {name: f"lsf:{name}" for name in ("bsub", "bjobs", "bkill")}
    jobs.install(commands, Path(__file__).parent, tmp_path / "bin", state)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield state
    every = jobs.Jobs(state)
    for number in every.all():
        every.end(number, "TERM_OWNER")
    wait_until(lambda: all(job["ended"] for job in every.all().values()))
