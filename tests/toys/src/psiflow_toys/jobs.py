"""Jobs of a stand-in for a batch system: scripts that run for real in the background, and their states in a folder.

The stand-in's commands are small programs that import this file by itself, and nothing but Python's own library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

GRACE = 1.0
"""Time between SIGTERM and SIGKILL at the end of the walltime. [s]"""


class Jobs:
    """Each job has a folder: `job.json` from its submission, `pid` from its start, `ended.json` from its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, script: str, walltime: float | None, held: str = "", **fields: Any) -> int:
        """A new job, which starts at once unless there is a reason to hold it; returns its number."""
        number = 1
        while True:
            place = self.folder / str(number)
            with contextlib.suppress(FileExistsError):
                place.mkdir(parents=True)
                break
            number += 1
        _write(place / "job.json", {"walltime": walltime, "held": held, **fields})
        (place / "script").write_text(script)
        if not held:
            command = [sys.executable, "-SE", __file__, str(place)]
            nothing = subprocess.DEVNULL
            subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        return number

    def all(self) -> dict[int, dict[str, Any]]:
        """The fields of each job; `ended` has its exit code and the reason."""
        found = {}
        for place in self.folder.glob("[0-9]*"):
            if (place / "job.json").exists():
                ended = place / "ended.json"
                end = json.loads(ended.read_text()) if ended.exists() else None
                found[int(place.name)] = {**json.loads((place / "job.json").read_text()), "ended": end}
        return found

    def end(self, number: int, why: str) -> None:
        """End a job, waiting or running."""
        place, job = self.folder / str(number), self.all()[number]
        if job["ended"]:
            return
        if job["held"]:
            _write(place / "ended.json", {"code": None, "why": why})
            return
        (place / "why").write_text(why)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((place / "pid").read_text()), signal.SIGTERM)


def install(commands: dict[str, str], library: Path, folder: Path, state: Path) -> None:
    """Put commands into a folder: the name of each, and the function of a module in `library` that does its work."""
    folder.mkdir()
    places = [str(library), str(Path(__file__).parent)]
    for name, function in commands.items():
        module, _, attribute = function.partition(":")
        code = f"import sys\nsys.path[:0] = {places!r}\nfrom {module} import {attribute}\n"
        program = folder / name
        program.write_text(f"#!{sys.executable} -SE\n{code}sys.exit({attribute}({str(state)!r}, sys.argv[1:]))\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def _write(file: Path, fields: dict[str, Any]) -> None:
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(fields))
    part.rename(file)


def _run(place: Path) -> None:
    """Run the script of a job until it ends, or its walltime does."""
    job = json.loads((place / "job.json").read_text())
    with open(job["output"], "ab") as output:
        script = place / "script"
        script.chmod(0o700)
        process = subprocess.Popen([script], stdout=output, stderr=output, start_new_session=True)
    (place / "pid").write_text(str(process.pid))
    if (place / "why").exists():  # it was ended before its number was known
        os.killpg(process.pid, signal.SIGTERM)
    over = False
    try:
        process.wait(job["walltime"])
    except subprocess.TimeoutExpired:
        over = True
        _end(process.pid, process.wait)
    why = (place / "why").read_text() if (place / "why").exists() else "walltime" if over else ""
    _write(place / "ended.json", {"code": process.wait(), "why": why})


def _end(group: int, wait: Callable[[float], int]) -> None:
    os.killpg(group, signal.SIGTERM)
    try:
        wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
