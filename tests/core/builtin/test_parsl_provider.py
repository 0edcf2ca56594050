"""Blocks by a provider of Parsl that a site already has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from parsl.launchers import WrappedLauncher
from parsl.providers import LocalProvider
from psiflow_toys.waiting import PATIENCE, wait_until

import psiflow_core as psiflow
from psiflow_core.builtin.parsl_provider import ParslProvider, load
from psiflow_core.errors import OptionError, PsiflowError
from psiflow_core.execution.blocks import Block, Provided
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import IdleRequest

SITE = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider, SlurmProvider

provider = LocalProvider(launcher=SimpleLauncher(), max_blocks=7)
made = lambda: LocalProvider(launcher=SimpleLauncher())
slurm = SlurmProvider("cpu", nodes_per_block=2, walltime="01:30:10")
executor = HighThroughputExecutor(label="cluster", address="127.0.0.1", provider=provider)
config = Config(executors=[executor])
two = Config(executors=[executor, HighThroughputExecutor(label="other", address="127.0.0.1", provider=provider)])
threads = ThreadPoolExecutor()
number = 12
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site_cluster.py"
    file.write_text(SITE)
    return file


def test_workers_come_by_a_provider_of_a_site(site: Path, tmp_path: Path) -> None:
    executor = psiflow.executor("parsl", provider=f"{site}:provider", workers=1, address="127.0.0.1")
    with Context(executor, folder=tmp_path / "pools") as context:
        assert context.run(IdleRequest(), timeout=PATIENCE).failure is None
        assert context.capacity.slots == {"all": 1}


@pytest.mark.parametrize("name", ["provider", "made", "executor", "config"])
def test_a_provider_is_found_in_whatever_a_site_has(site: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.syspath_prepend(site.parent)
    monkeypatch.delitem(sys.modules, site.stem, raising=False)
    found = load(f"{site.stem}:{name}")
    assert type(found).__name__ == "LocalProvider"
    assert found is not load(f"{site.stem}:{name}"), "each pool has its own, which knows its own jobs"


def test_a_path_is_kept_absolute(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.parent)
    assert psiflow.executor("parsl", provider="site_cluster.py:provider").options["provider"] == f"{site}:provider"


def test_nodes_and_wall_time_are_those_of_the_provider(site: Path) -> None:
    executor = ParslProvider(provider=f"{site}:slurm", nodes=2, blocks=3, cores=4)
    assert executor.block_time() == 5410.0
    assert executor.slots() == 24
    with pytest.raises(OptionError, match="nodes_per_block=2: give nodes=2"):
        psiflow.executor("parsl", provider=f"{site}:slurm")


@pytest.mark.parametrize(
    ("provider", "why"),
    [
        ("nothing_of_this_name:provider", "nothing_of_this_name cannot be imported"),
        ("provider", "write module:name"),
        ("{site}:nothing", "has no 'nothing'"),
        ("{site}:number", "is a int, not a provider of Parsl"),
        ("{site}:threads", "is a ThreadPoolExecutor, not a provider of Parsl"),
        ("{site}:two", "executors cluster, other; name one of their providers"),
        ("{site}.missing.py:provider", "cannot be imported"),
    ],
)
def test_what_is_no_provider_is_refused_at_once(site: Path, provider: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        psiflow.executor("parsl", provider=provider.format(site=site))


def test_options_that_a_provider_ignores_are_refused(site: Path) -> None:
    with pytest.raises(OptionError, match="setup has no effect on a provider of Parsl: use its worker_init"):
        psiflow.executor("parsl", provider=f"{site}:provider", setup="module load python")


def test_a_block_s_keys_reach_its_command_under_a_launcher_and_no_other_block(site: Path, tmp_path: Path) -> None:
    """A launcher of Parsl puts its words before the first line of a command only."""
    provider = LocalProvider(launcher=WrappedLauncher("env WRAPPED=yes"), worker_init="export OWN=1")
    scheduler, told = Provided(provider), tmp_path / "told"
    for secrets in ({"KEY": "it's $a key"}, {}):
        command = ("sh", "-c", f'echo "$WRAPPED $OWN $KEY" >>"{told}"')
        job = scheduler.submit(Block(f"psi0-{len(secrets)}", command, tmp_path, False, (), secrets))
        wait_until(lambda job=job: scheduler.states([job])[job].phase == "ended")
    assert told.read_text().splitlines() == ["yes 1 it's $a key", "yes 1 "]


def test_a_provider_says_that_it_cannot_cancel_the_jobs_of_another_driver(tmp_path: Path) -> None:
    """Its record stays open then, and the log names the jobs."""
    with pytest.raises(PsiflowError, match="another driver's"):
        Provided(LocalProvider()).cancel(["78"])
