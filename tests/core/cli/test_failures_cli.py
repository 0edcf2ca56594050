"""Every failure is a record that a person can read, and can be had again, alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from psiflow_toys import campaigns
from psiflow_toys.reference import ToyReference

import psiflow_core as psiflow
from psiflow_core.cli import main
from psiflow_core.cli.failures import failures
from psiflow_core.components import LabelTask, Spec
from psiflow_core.errors import CampaignError, ReferenceFailed, WalkerExploded
from psiflow_core.execution.tasks import sample
from psiflow_core.execution.tasks.perform import KINDS
from psiflow_core.execution.tasks.request import Grant, Request, Result
from psiflow_core.files import write_sealed
from psiflow_core.labels.store import claim_file, label_file, read_label
from psiflow_core.learning.driver.orders import REQUEST
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.tasks import Labelling
from psiflow_core.processes.claims import claimed
from psiflow_core.sampling.walk import Visited
from psiflow_core.structures import Label, digest, from_plain

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, in this process: exit code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def fails_once(kind: str) -> Callable[[Any, Grant], Result]:
    """A task that fails the first time that it is run."""
    does, calls = KINDS[kind].run, Counter[str]()

    def run(request: Request, grant: Grant) -> Result:
        calls[kind] += 1
        if calls[kind] == 1:
            raise RuntimeError(f"no luck with {kind}")
        return does(request, grant)

    return run


def exploding(together: Callable[..., list[Visited]]) -> Callable[..., list[Visited]]:
    """Sampling in which the first walker never survives, once there are two in a task."""

    def run(*arguments: Any, **options: Any) -> list[Visited]:
        first, *rest = together(*arguments, **options)
        return [replace(first, segment=None, error=WalkerExploded("too hot")) if rest else first, *rest]

    return run


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a campaign in which the first task of every kind failed, and walkers; look, and leave it."""
    folder = tmp_path_factory.mktemp("campaigns") / "un lucky"
    slow = psiflow.executor("threads", workers=1)  # labels wait, so that newer models look at them
    asked = campaigns.learning(16, walkers=4, reference=psiflow.reference("toy", delay=0.1), walking=WALKING)
    with pytest.MonkeyPatch.context() as patch, psiflow.Context("threads", label=slow, folder=folder / "p") as context:
        for kind in ("label", "train", "sample", "score", "evaluate"):
            patch.setattr(KINDS[kind], "run", fails_once(kind))
        patch.setattr(sample, "sample_together", exploding(sample.sample_together))
        campaigns.run(folder, context, asked, test=campaigns.moved_water(1, seed=5))
    return folder


WALKING = psiflow.Walking(segment=psiflow.Segments(steps=10, check_every=5, batch=2))


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder by its hash and when it was written, but what reruns have left in it."""
    files = [file for file in folder.rglob("*") if file.is_file() and "rerun-" not in str(file)]
    return {
        str(file.relative_to(folder)): f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_mtime_ns}"
        for file in files
    }


def test_failures_of_every_kind_are_listed_with_the_command_that_runs_them_again(
    unlucky: Path, command: Command
) -> None:
    code, said, _ = command("failures", unlucky)
    assert code == 0
    lines = said.splitlines()
    recorded = failures(read_campaign(unlucky))
    assert {failed.failure.kind for failed in recorded} == {"label", "train", "sample", "score", "evaluate"}
    for failed in recorded:
        failure = failed.failure
        assert any(failure.task in line and failure.message in line and failure.reason in line for line in lines)
        assert f"psiflow rerun '{unlucky}' {failure.task}  # {failed.folder}" in lines
        assert (failed.folder / REQUEST).is_file()
    assert any("no luck with train" in line and "once, then again" in line for line in lines)


def test_the_structure_of_a_failure_is_told(unlucky: Path, command: Command) -> None:
    said = command("failures", unlucky)[1]
    recorded = failures(read_campaign(unlucky))
    (label,) = (failed for failed in recorded if failed.failure.kind == "label")
    assert isinstance(label.about, Labelling)
    number = label.about.candidate
    candidate = read_campaign(unlucky).state.candidates[number]
    assert f"candidate {number}: " in said
    assert candidate.structure[:8] in said
    walker = next(failed for failed in recorded if failed.failure.walker is not None)
    assert walker.failure.reason == "exploded"
    assert f"walker {walker.failure.walker}: H2O {digest(campaigns.water()[0])[:8]}" in said


def test_failures_can_be_asked_for_by_their_reason(unlucky: Path, command: Command) -> None:
    said = command("failures", unlucky, "--reason", "explo")[1]
    assert "too hot" in said
    assert "no luck" not in said
    assert "Did you mean 'exploded'?" in command("failures", unlucky, "--reason", "eksploded")[1]


def test_a_campaign_without_failures_says_so(learned: Path, command: Command) -> None:
    assert command("failures", learned)[:2] == (0, f"No task of the campaign in {learned} has failed.\n")


def test_a_task_of_any_kind_runs_again_alone_also_where_its_campaign_was_moved(
    unlucky: Path, command: Command, tmp_path: Path
) -> None:
    moved, away = tmp_path / "moved", unlucky.with_name("away")
    shutil.copytree(unlucky, moved)
    before = contents(moved)
    unlucky.rename(away)
    try:
        for failed in {failed.failure.task: failed for failed in failures(read_campaign(moved))}.values():
            code, said, error = command("rerun", moved, failed.failure.task)
            assert code == 0, said + error
            assert "It succeeded" in said
            assert str(unlucky) not in said
        assert contents(moved) == before, "everything that a rerun writes is in a folder of its own"
        assert not unlucky.exists()
    finally:
        away.rename(unlucky)


def test_what_fails_again_shows_its_whole_trace(campaign: Path, command: Command, tmp_path: Path) -> None:
    shutil.copytree(campaign, tmp_path / "c")
    task = failures(read_campaign(campaign))[0].failure.task
    code, said, _ = command("rerun", tmp_path / "c", task)
    assert code == 1
    assert "Traceback (most recent call last)" in said
    assert "psiflow_core.errors.ReferenceFailed: this structure is one of those that the toy fails on" in said
    assert "It failed again" in said


def test_walkers_that_fail_again_show_their_traces(
    unlucky: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(unlucky, tmp_path / "c")
    monkeypatch.setattr(sample, "sample_together", exploding(sample.sample_together))
    task = next(failed for failed in failures(read_campaign(unlucky)) if failed.failure.walker is not None).failure.task
    code, said, _ = command("rerun", tmp_path / "c", task)
    assert code == 1
    assert "WalkerExploded: too hot" in said


def test_a_label_that_succeeds_is_found_by_the_next_run(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    does, broken, computed, cores = ToyReference.label, [True], Counter[str](), set[int]()
    pool = psiflow.executor("threads", workers=2, cores_per_worker=3)

    def label(self: ToyReference, structure: Atoms, task: LabelTask) -> Label:
        computed[digest(structure)] += 1
        cores.add(task.resources.cores)
        if broken[0] and len(structure) > 1:
            raise ReferenceFailed("the licence has expired", "engine")
        return does(self, structure, task)

    monkeypatch.setattr(ToyReference, "label", label)
    folder = tmp_path / "c"
    asked = campaigns.learning(6, bootstrap=psiflow.Bootstrap(structures=5))
    with psiflow.Context(pool, folder=folder / "pools") as context, pytest.raises(CampaignError):
        campaigns.run(folder, context, asked)
    failed = failures(read_campaign(folder))[0]
    journal = contents(folder)["journal.sqlite"]
    broken[0] = False
    cores.clear()
    code, said, _ = command("rerun", folder, failed.failure.task)
    assert code == 0
    assert "The next run of the campaign uses this label." in said
    assert cores == {3}, "as in its pool"
    assert contents(folder)["journal.sqlite"] == journal
    (file,) = (line.split()[1] for line in said.splitlines() if line.startswith("label  "))
    structure, _ = read_label(file)
    computed.clear()
    with psiflow.Context(pool, folder=folder / "pools") as context:
        state = campaigns.run(folder, context, asked).state
    assert isinstance(failed.about, Labelling)
    assert state.candidates[failed.about.candidate].status == "labelled"
    assert sum(computed.values()) >= 4
    assert computed[digest(structure)] == 0


def test_a_task_that_did_not_fail_is_one_line(campaign: Path, command: Command) -> None:
    known = [failed.failure.task for failed in failures(read_campaign(campaign))]
    code, _, error = command("rerun", campaign, f"{known[0]}x")
    assert code == 1
    assert f"Did you mean '{known[0]}'?" in error
    assert ", ".join(known) in error
    fine = next(one.id for one in read_campaign(campaign).state.of("atom"))
    assert f"'label-{fine:05d}' has not failed" in command("rerun", campaign, f"label-{fine:05d}")[2]


def test_a_task_without_its_input_is_one_line(campaign: Path, command: Command, tmp_path: Path) -> None:
    shutil.copytree(campaign, tmp_path / "c")
    (failed, *_) = failures(read_campaign(tmp_path / "c"))
    (failed.folder / REQUEST).unlink()
    code, _, error = command("rerun", tmp_path / "c", failed.failure.task)
    assert code == 1
    assert "its input was not kept" in error
    assert command("failures", tmp_path / "c")[0] == 0


def test_failures_are_listed_also_where_a_disk_has_lost_something(
    unlucky: Path, command: Command, tmp_path: Path
) -> None:
    shutil.copytree(unlucky, tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "structures")
    for file in (tmp_path / "c" / "tasks").glob(f"*/{REQUEST}"):
        file.write_text("{")
    code, said, _ = command("failures", tmp_path / "c")
    assert code == 0
    assert "structure lost" in said
    assert "cannot be read" in command("rerun", tmp_path / "c", "train-000-0")[2]


def test_a_failure_is_recorded_where_the_disk_takes_no_input(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, plain: Any) -> None:
        if path.name == REQUEST:
            raise OSError(28, "No space left on device")
        write_sealed(path, plain)

    monkeypatch.setattr("psiflow_core.learning.driver.outcomes.write_sealed", full)
    monkeypatch.setattr(KINDS["train"], "run", fails_once("train"))
    with psiflow.Context("threads", folder=tmp_path / "c" / "pools") as context:
        campaigns.run(tmp_path / "c", context, campaigns.learning(4, bootstrap=psiflow.Bootstrap(structures=4)))
    (failed,) = failures(read_campaign(tmp_path / "c"))
    assert "No space left on device" in command("rerun", tmp_path / "c", failed.failure.task)[2]


def test_the_input_is_kept_as_it_was_sent(campaign: Path) -> None:
    failed = failures(read_campaign(campaign))[0]
    kept = json.loads((failed.folder / REQUEST).read_text())
    assert kept["campaign"] == str(campaign)
    assert kept["kind"] == "label"
    assert kept["request"]["folder"] == str(failed.folder)


def test_a_label_that_a_campaign_is_computing_is_not_computed_beside_it(
    command: Command, campaign: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(campaign, tmp_path / "c"))
    failed = next(one for one in failures(read_campaign(folder)) if one.failure.kind == "label")
    given = json.loads((failed.folder / REQUEST).read_text())["request"]
    reference, structure = Spec.from_plain(given["reference"]), from_plain(given["structure"])
    with claimed(claim_file(label_file(folder / "labels", reference, structure))):
        code, out, _ = command("rerun", folder, failed.failure.task)
    assert (code, "is computing the same label" in out) == (1, True)
