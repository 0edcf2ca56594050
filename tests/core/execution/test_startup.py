"""The start-up script of instances of a cloud, run by bash: it ends the instance whatever happens."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
from psiflow_toys.waiting import PATIENCE, survivors, wait_until

from psiflow_core.execution.blocks import Block, Cloud, Docker, end_told, start_up_script

SLEEP = ("sh", "-c", "trap 'echo drained; exit 7' TERM; echo began; while true; do sleep 0.05; done")
"""A command that says how it is ended."""

DEAF = ("sh", "-c", "trap '' TERM; while true; do sleep 0.05; done")


def started(
    folder: Path,
    *command: str,
    setup: tuple[str, ...] = (),
    walltime: float = 600.0,
    grace: int = 60,
    secrets: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """The script in this folder. A file `notice` there is the cloud's notice, a file `down` the instance's end."""
    block = Block("psi12ab-all-0", command, folder, secrets=secrets or {})
    cloud = Cloud(f"test -e {folder}/notice", f"touch {folder}/finished", f"touch {folder}/down", grace, look=1)
    script = start_up_script(block, cloud, setup, walltime)
    return subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], folder: Path) -> str:
    """The output of the script, after which the instance is down and nothing of it runs."""
    children = psutil.Process(process.pid).children(recursive=True)
    output = process.communicate(timeout=PATIENCE)[0]
    assert (folder / "finished").exists()
    assert (folder / "down").exists()
    assert not survivors(children)
    return output


def test_an_instance_ends_with_its_command(tmp_path: Path) -> None:
    command = ("sh", "-c", 'echo "$KEY $HALF$0"; exit 3', "two  words")
    process = started(tmp_path, *command, setup=("export HALF=forty-",), secrets={"KEY": "it's a secret"})
    assert end_told(ended(process, tmp_path)) == (3, "it's a secret forty-two  words")


def test_an_instance_ends_if_its_command_cannot_start(tmp_path: Path) -> None:
    code, words = end_told(ended(started(tmp_path, "/nowhere/python"), tmp_path))
    assert code == 127
    assert "/nowhere/python" in words


def test_a_notice_of_the_cloud_reaches_the_command(tmp_path: Path) -> None:
    process = started(tmp_path, *SLEEP)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    (tmp_path / "notice").touch()
    code, words = end_told(ended(process, tmp_path))
    assert (code, words.split(" | ")[-1]) == (7, "drained")


def test_sigterm_at_a_shutdown_reaches_the_command(tmp_path: Path) -> None:
    process = started(tmp_path, *SLEEP)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGTERM)
    assert end_told(ended(process, tmp_path)) == (7, "drained")


def test_a_command_that_hangs_is_killed_after_the_walltime(tmp_path: Path) -> None:
    code, words = end_told(ended(started(tmp_path, *DEAF, walltime=0.1, grace=1), tmp_path))
    assert code == 128 + signal.SIGKILL
    assert "the time of this instance is over" in words


def test_output_without_an_end_tells_nothing() -> None:
    assert end_told("Linux version 6\npsiflow: this instance is about to be interrupted\n") == (None, "")


def test_a_container_gets_the_keys_by_name_alone() -> None:
    block = Block("psi12ab-all-0", ("python", "-m", "guard"), Path(), secrets={"KEY": "value"})
    words = Docker("image:1", binds=("/data", "/a:/b"), gpus=True).words(block)
    assert words == [
        *("docker", "run", "--rm", "--init", "--network", "host", "--env", "KEY"),
        *("--volume", "/data:/data", "--volume", "/a:/b", "--gpus", "all", "image:1", "python", "-m", "guard"),
    ]


def test_the_command_starts_when_the_set_up_is_done(tmp_path: Path) -> None:
    process = started(tmp_path, "cat", f"{tmp_path}/prepared", setup=(f"echo ready > {tmp_path}/prepared",))
    wait_until((tmp_path / "down").exists)
    assert end_told(ended(process, tmp_path)) == (0, "ready")
