"""Job scripts and the commands of a site: nothing of an option reaches a shell unquoted, and nothing waits for ever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import (
    Answer,
    Batch,
    BatchSystem,
    Block,
    BlockState,
    Scheduler,
    SchedulerUnavailable,
    SubmissionRefused,
)
from psiflow_core.processes.block import FAILED_SETUP

NASTY = "a b; touch one & $(touch two) `touch three` {x} 'y' \"z\" * \\"


class Options(Batch):
    name: ClassVar[str] = "site"

    def scheduler(self, pool: Pool) -> Scheduler:
        return Site(self)


class Site(BatchSystem):
    """Submits with a Python program, which stands for the command of a site."""

    program = "print('17')"
    title = "a title"

    def head(self, block: Block) -> Sequence[str]:
        return [f"#SITE --title={self.title}"]

    def submission(self, script: Path, block: Block) -> Sequence[str]:
        return [sys.executable, "-c", self.program, str(script)]

    def job(self, answer: Answer) -> str:
        return answer.output.strip()

    def refused(self, answer: Answer) -> bool:
        return "no such queue" in answer.errors

    def launch(self, command: Sequence[str]) -> Sequence[str]:
        return ["env", "NODES=2", *command]

    def states(self, ids: Collection[str]) -> Mapping[str, BlockState]:
        raise NotImplementedError

    def cancel(self, ids: Collection[str]) -> None:
        raise NotImplementedError

    def find(self, tag: str) -> Mapping[str, str]:
        raise NotImplementedError


def block(folder: Path, *command: str, every: bool = True) -> Block:
    return Block("psi0-all-0", command, folder, on_every_node=every)


def test_no_word_of_a_command_and_no_name_of_a_folder_is_read_by_the_shell(tmp_path: Path) -> None:
    folder = tmp_path / NASTY.replace("/", "")
    folder.mkdir()
    script = Site(Options()).script(block(folder, "printf", "%s\n", NASTY, "$HOME", str(folder)))
    (tmp_path / "script").write_text(script)
    done = subprocess.run(["bash", str(tmp_path / "script")], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [NASTY, "$HOME", str(folder)]
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, "script"}
    assert not list(folder.iterdir())


def test_lines_of_set_up_are_shell_and_come_before_the_command(tmp_path: Path) -> None:
    options = Options(setup="export A=1\nexport B=$((A + 1))", directives=("#SITE --more",))
    lines = Site(options).script(block(tmp_path, "true")).splitlines()
    assert lines[:3] == ["#!/bin/bash", "#SITE --title=a title", "#SITE --more"]
    assert lines[-4:] == ["export A=1", "export B=$((A + 1))", "trap - ERR", "exec true"]


def test_a_line_of_set_up_that_fails_is_noted_and_does_not_end_the_block(tmp_path: Path) -> None:
    setup = ("no-such-module load cp2k", "false || true", "export A=1")
    command = ("bash", "-c", f'echo "${FAILED_SETUP}"; false; echo "$A ${FAILED_SETUP}"')
    script = tmp_path / "script"
    script.write_text(Site(Options(setup=setup)).script(block(tmp_path, *command)))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["no-such-module load cp2k", "1 no-such-module load cp2k"]
    assert "psiflow: a line of setup has failed: no-such-module load cp2k" in done.stderr


def test_a_command_is_launched_on_every_node_or_on_the_first_alone(tmp_path: Path) -> None:
    several = Site(Options(nodes=2))
    assert several.script(block(tmp_path, "true")).splitlines()[-1] == "exec env NODES=2 true"
    assert several.script(block(tmp_path, "true", every=False)).splitlines()[-1] == "exec true"
    assert Site(Options()).script(block(tmp_path, "true")).splitlines()[-1] == "exec true"


def test_an_option_cannot_add_a_line_to_the_head_of_a_script(tmp_path: Path) -> None:
    site = Site(Options())
    site.title = "x\n#SITE --account=other"
    with pytest.raises(ValueError, match="line break"):
        site.script(block(tmp_path, "true"))


def test_a_host_without_room_for_a_process_may_have_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "run", full)
    with pytest.raises(SchedulerUnavailable, match="cannot be started now: Resource temporarily unavailable"):
        Site(Options()).submit(block(tmp_path, "true"))


def test_a_submission_gives_the_id_of_the_job(tmp_path: Path) -> None:
    assert Site(Options()).submit(block(tmp_path, "true")) == "17"
    assert (tmp_path / "psi0-all-0.sh").read_text().endswith("exec true\n")


@pytest.mark.parametrize(
    ("program", "error", "words"),
    [
        ("import sys; sys.exit('error: no such queue: shrot')", SubmissionRefused, "error: no such queue: shrot"),
        ("import sys; sys.exit('error: connection refused')", SchedulerUnavailable, "error: connection refused"),
        ("import time; time.sleep(60)", SchedulerUnavailable, "did not answer within 1 s"),
        ("print('')", SchedulerUnavailable, "no job id"),
    ],
)
def test_a_submission_that_fails_says_whether_it_is_worth_another_try(
    program: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    site = Site(Options())
    site.program, site.deadline = program, 1.0 if "sleep" in program else 60.0
    with pytest.raises(error, match=words):
        site.submit(block(tmp_path, "true"))


def test_a_command_that_waits_is_told_with_its_words() -> None:
    site = Site(Options())
    site.deadline = 2.0
    with pytest.raises(SchedulerUnavailable, match="sh did not answer within 2 s: Job threshold reached"):
        site.ask(["sh", "-c", "echo Job threshold reached >&2; exec sleep 60"])


def test_a_command_that_is_not_there_is_never_tried_again() -> None:
    with pytest.raises(SubmissionRefused, match="no-such-command cannot be started on this host"):
        Site(Options()).ask(["no-such-command"])


def test_a_command_of_the_site_reads_a_script_from_its_input() -> None:
    echo = [sys.executable, "-c", "import sys; print(sys.stdin.read()[::-1])"]
    assert Site(Options()).ask(echo, "abc").output == "cba\n"


def test_a_container_wraps_the_command_with_its_gpus_and_binds(tmp_path: Path) -> None:
    options = Options(container="image with space.sif", gpus=1, binds=("/data:/data",))
    pool = Pool("all", tmp_path / "pools" / "all-1", ("python",), driver=1)
    own = str(tmp_path / "pools")
    words = options.wrapped(("guard", "python"), pool)
    assert words == (
        *("apptainer", "exec", "--nv", "--bind", own, "--bind", "/data:/data"),
        *("image with space.sif", "guard", "python"),
    )


def test_a_task_over_several_nodes_has_the_whole_block() -> None:
    options = Options(nodes=2, nodes_per_task=2, cores=16, blocks=3)
    assert options.slots() == 3
    assert options.resources().cores == 32
    every = Options(nodes=2, cores=16, cores_per_worker=4, blocks=3)
    assert every.slots() == 3 * 2 * 4


def test_gpus_make_the_device_and_the_workers() -> None:
    options = Options(gpus=2, cores=8)
    assert options.device == "cuda"
    assert options.slots() == 2
    assert Options(gpus=2, cores=8, workers=6).slots() == 6
