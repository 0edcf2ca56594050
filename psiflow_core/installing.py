"""Virtual environments of psiflow's own: made, brought up to date and removed. Nothing is printed here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from psiflow_core.environments import RECORD, Environment, keep, known, launch_words, names, read, root, valid
from psiflow_core.errors import EnvironmentUnfit, OptionError
from psiflow_core.offers import ask_here, variables
from psiflow_core.packages import joined, origin

Installer = Literal["uv", "pip"]

VENV = "venv"
LOG = "install.log"
"""What the installer said, in the environment's folder."""

TAIL = 12
"""Lines of an installer's output that an error shows."""

Step = Callable[[str], None]
"""Is told what goes on."""


def create(
    name: str, wanted: Sequence[str] = (), installer: Installer | None = None, step: Step = lambda _: None
) -> Environment:
    """Make an environment with the driver's psiflow and Parsl, ask what it offers, and record that.

    Nothing is left of one that could not be made.

    Args:
        wanted: what else to install, as `packages.words`.
        installer: uv where it is on the PATH, else pip, if none is given.

    Raises:
        OptionError: the name is taken or cannot be one.
        EnvironmentUnfit: it cannot be made, or does not answer; with the end of what the installer said.
    """
    folder, tool = root() / valid(name), chosen(installer)
    _claim(folder)
    python = folder / VENV / "bin" / "python"
    try:
        step(f"making {folder / VENV}")
        _run(name, _venv_words(tool, folder / VENV), folder / LOG)
        step(f"{tool} is installing {shlex.join(wanted) or 'psiflow-core'}")
        _run(name, _install_words(tool, python, wanted), folder / LOG)
        step("asking it what it offers")
        made = Environment(name, (str(python),), ask_here((str(python),), engines=True), tuple(wanted), own=True)
        keep(made)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return made


def adopt(name: str, where: Sequence[str], step: Step = lambda _: None) -> Environment:
    """Record an environment that exists, for every process; `environments.adopt` is for one.

    Raises:
        EnvironmentUnfit: it does not start, or psiflow-core is not installed there.
        OptionError: the name is that of an environment that psiflow has made, or cannot be one.
    """
    step("asking it what it offers")
    folder = root() / valid(name)
    if folder.exists() and not (name in names() and not read(name).own):
        _claim(folder)
    launch = launch_words(where)
    adopted = Environment(name, launch, ask_here(launch, engines=True))
    keep(adopted)
    return adopted


def update(environment: Environment, wanted: Sequence[str] = (), step: Step = lambda _: None) -> Environment:
    """Bring what was installed up to date with the driver and add packages; then ask and record it anew.

    An adopted environment is its owner's: it is only asked and recorded.

    Raises:
        OptionError: packages are to be added to an adopted environment.
        EnvironmentUnfit: they cannot be installed, or it does not answer. The record stays as it was.
    """
    packages = joined(environment.packages, wanted)
    if not environment.own and wanted:
        there = shlex.join([*environment.launch, "-m", "pip", "install", *wanted])
        raise OptionError(
            f"environment '{environment.name}' was adopted, and psiflow installs nothing there. Do it yourself, and "
            f"have it recorded again: {there}; psiflow env update {environment.name}"
        )
    if environment.own:
        python = Path(environment.launch[0])
        if not python.exists():
            raise EnvironmentUnfit(
                f"environment '{environment.name}' cannot be brought up to date: {python} is gone", environment.anew()
            )
        tool = chosen(_maker(python.parents[1]))
        step(f"{tool} is installing {shlex.join(packages) or 'psiflow-core'}")
        log = root() / environment.name / LOG
        _run(environment.name, _install_words(tool, python, packages, upgrade=True), log, f" All of it is in {log}.")
    step("asking it what it offers")
    renewed = replace(environment, offers=ask_here(environment.launch, engines=True), packages=packages)
    keep(renewed)
    return renewed


def remove(name: str) -> None:
    """Delete an environment of psiflow's own, whole or not; of an adopted one the record.

    Raises:
        OptionError: there is none, or its folder holds what psiflow has not put there.
    """
    folder = root() / valid(name)
    if not folder.is_dir():
        known(name)  # raises, with the names that there are
    made = (folder / LOG).exists()
    (folder / RECORD).unlink(missing_ok=True)  # first: what is left of it, if this is cut short, is no environment
    try:
        if made:
            shutil.rmtree(folder)
        else:
            folder.rmdir()
    except OSError as error:
        raise OptionError(f"{folder} is no environment any more, and cannot be deleted: {error.strerror}") from error


def chosen(installer: Installer | None) -> Installer:
    """The installer to use; raises `OptionError` where it is not there."""
    if installer not in (None, *get_args(Installer)):
        raise OptionError(f"no installer '{installer}': {' or '.join(get_args(Installer))}")
    if installer == "uv" and not _uv():
        raise OptionError("uv is not installed: pip install uv, or use --installer pip")
    return installer or ("uv" if _uv() else "pip")


def _uv() -> str:
    """The program uv, on the PATH or beside this interpreter; empty where there is none."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    return shutil.which("uv", path=places) or ""


def _claim(folder: Path) -> None:
    """Make the folder of an environment, which nobody else may have."""
    name = folder.name
    if name in names():
        raise OptionError(
            f"there is an environment '{name}' already: psiflow env update {name} brings it up to date, "
            f"psiflow env remove {name} removes it"
        )
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise OptionError(
            f"environment '{name}' is being made, or its making was cut short; in that case clear it away: "
            f"psiflow env remove {name}"
        ) from error
    except OSError as error:
        raise OptionError(
            f"{folder} cannot be made: {error.strerror}. Have PSIFLOW_ENVIRONMENTS name a folder that you may write"
        ) from error


def _venv_words(tool: Installer, venv: Path) -> list[str]:
    if tool == "uv":
        return [_uv(), "venv", "--python", sys.executable, str(venv)]
    return [sys.executable, "-m", "venv", str(venv)]


def _install_words(tool: Installer, python: Path, wanted: Sequence[str], upgrade: bool = False) -> list[str]:
    what = [*origin("parsl"), *origin("psiflow-core"), *wanted]
    renew = ["--upgrade"] if upgrade else []
    if tool == "uv":
        return [_uv(), "pip", "install", "--python", str(python), *renew, *what]
    return [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *renew, *what]


def _run(name: str, command: Sequence[str], log: Path, remains: str = "") -> None:
    """Run an installer; what it says goes to a file, of which `remains` tells that it is kept.

    Raises:
        EnvironmentUnfit: it fails.
    """
    start = log.stat().st_size if log.exists() else 0
    with log.open("a") as stream:
        stream.write(f"$ {shlex.join(command)}\n")
        stream.flush()
        code = _ended(command, stream.fileno())
    if code:
        said = log.read_bytes()[start:].decode(errors="replace")
        tail = "\n".join(f"  {line}" for line in said.rstrip().splitlines()[-TAIL:])
        raise EnvironmentUnfit(
            f"environment '{name}' could not be installed: {reason(said)}\nThe end of what was said:{remains}\n{tail}"
        )


def _ended(command: Sequence[str], output: int) -> int:
    """The exit code of a command; if this process is stopped, the command with all its children is stopped before."""
    given = variables()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=given, start_new_session=True
    )
    try:
        return process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def reason(said: str) -> str:
    """Why an installer failed, in one line: its last error, or its last line."""
    lines = [line.strip(" │╰─▶>") for line in said.splitlines() if line.strip(" │╰─▶>")]
    starts = [number for number, line in enumerate(lines) if line.lower().startswith(("error", "×"))]
    found = " ".join(lines[starts[-1] :][:4] if starts else lines[-1:])
    return re.sub(r"^(error:?|×)\s*", "", found, flags=re.IGNORECASE)


def _maker(venv: Path) -> Installer:
    """Who has made a virtual environment: one of uv's has no pip."""
    marked = any(line.startswith("uv =") for line in (venv / "pyvenv.cfg").read_text().splitlines())
    return "uv" if marked else "pip"
