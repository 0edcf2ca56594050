"""Virtual environments made by psiflow: creation, update and removal. This module prints nothing."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from psiflow_core.environments.description import ask_here
from psiflow_core.environments.environment import (
    DESCRIPTION,
    Environment,
    keep,
    known,
    launch_words,
    names,
    read,
    root,
    valid,
)
from psiflow_core.environments.requirements import joined, origin
from psiflow_core.errors import EnvironmentUnfit, OptionError
from psiflow_core.processes import guard
from psiflow_core.processes.claims import Owner, claimed, holder
from psiflow_core.processes.limits import end

Installer = Literal["uv", "pip"]

VENV = "venv"
CLAIM = "at-work.json"
"""The file in an environment's folder that names the process which makes or changes it."""

LOG = "install.log"
"""The file with the installer's output, in the environment's folder."""

TAIL = 12
"""How many of the last lines of an installer's output an error shows."""

Step = Callable[[str], None]
"""Called with a description of each step as it begins."""


def create(
    name: str, wanted: Sequence[str] = (), installer: Installer | None = None, step: Step = lambda _: None
) -> Environment:
    """Make an environment with the driver's versions of psiflow and Parsl, and store its description.

    If it fails, everything it made is deleted.

    Args:
        name: the environment's name.
        wanted: further packages, as `requirements.words`.
        installer: uv or pip; by default uv if it is on the PATH, else pip.
        step: called with a description of each step.

    Raises:
        OptionError: the name is taken or is not legal.
        EnvironmentUnfit: it cannot be made, or does not answer; the message holds the end of the installer's output.
    """
    folder, tool = root() / valid(name), chosen(installer)
    _make(folder)
    python = folder / VENV / "bin" / "python"
    try:
        with _at_work(name):
            return _made(name, tool, python, wanted, step)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _made(name: str, tool: Installer, python: Path, wanted: Sequence[str], step: Step) -> Environment:
    venv, log = python.parents[1], python.parents[2] / LOG
    step(f"making {venv}")
    _run(name, _venv_words(tool, venv), log)
    step(f"{tool} is installing {shlex.join(wanted) or 'psiflow-core'}")
    _run(name, _install_words(tool, python, wanted), log)
    step("reading its components")
    made = Environment(name, (str(python),), ask_here((str(python),), engines=True), tuple(wanted), own=True)
    keep(made)
    return made


@contextmanager
def _at_work(name: str) -> Iterator[None]:
    """Claim an environment while it is made or changed; raises `OptionError` if another process has claimed it."""
    with claimed(root() / name / CLAIM) as other:
        if other is not None:
            raise OptionError(_busy(name, other))
        yield


def _busy(name: str, owner: Owner) -> str:
    return f"{owner} is making or changing environment '{name}': wait for it, or end it"


def adopt(name: str, where: Sequence[str], step: Step = lambda _: None) -> Environment:
    """Store the description of an existing environment, for all processes; `environment.adopt` is for this one only.

    Raises:
        EnvironmentUnfit: it does not start, or psiflow-core is not installed there.
        OptionError: the name is not legal, or belongs to an environment that psiflow made.
    """
    step("reading its components")
    folder = root() / valid(name)
    if folder.exists() and not (name in names() and not read(name).own):
        _make(folder)
    launch = launch_words(where)
    adopted = Environment(name, launch, ask_here(launch, engines=True))
    keep(adopted)
    return adopted


def update(environment: Environment, wanted: Sequence[str] = (), step: Step = lambda _: None) -> Environment:
    """Update the packages to the driver's versions, add new packages, and store the description again.

    Nothing is installed in an adopted environment: only its description is stored again.

    Raises:
        OptionError: packages were given for an adopted environment.
        EnvironmentUnfit: they cannot be installed, or it does not answer. The stored description does not change.
    """
    packages = joined(environment.packages, wanted)
    if not environment.own and wanted:
        install = shlex.join([*environment.launch, "-m", "pip", "install", *wanted])
        raise OptionError(
            f"environment '{environment.name}' was adopted, and psiflow installs nothing in adopted environments. "
            f"Install it yourself, then store the description again: {install}; psiflow env update {environment.name}"
        )
    with _at_work(environment.name):
        return _updated(environment, packages, step)


def _updated(environment: Environment, packages: tuple[str, ...], step: Step) -> Environment:
    if environment.own:
        python = Path(environment.launch[0])
        if not python.exists():
            raise EnvironmentUnfit(
                f"environment '{environment.name}' cannot be updated: {python} no longer exists", environment.anew()
            )
        tool = chosen(_maker(python.parents[1]))
        step(f"{tool} is installing {shlex.join(packages) or 'psiflow-core'}")
        log = root() / environment.name / LOG
        _run(environment.name, _install_words(tool, python, packages, upgrade=True), log, f" (all of it: {log})")
    step("reading its components")
    renewed = replace(environment, description=ask_here(environment.launch, engines=True), packages=packages)
    keep(renewed)
    return renewed


def remove(name: str) -> None:
    """Delete an environment that psiflow made, complete or not. Of an adopted environment, delete the description.

    Raises:
        OptionError: no environment has this name, another process is making or changing it, or its folder holds
            files that psiflow did not write.
    """
    folder = root() / valid(name)
    if not folder.is_dir():
        known(name)  # raises, with the existing names
    owner = holder(folder / CLAIM)
    if owner is not None:
        raise OptionError(_busy(name, owner))
    (folder / CLAIM).unlink(missing_ok=True)
    made = (folder / LOG).exists()
    (folder / DESCRIPTION).unlink(missing_ok=True)  # first: after an interruption, the rest is not an environment
    try:
        if made:
            shutil.rmtree(folder)
        else:
            folder.rmdir()
    except OSError as error:
        raise OptionError(
            f"environment '{name}' is removed, but its folder {folder} cannot be deleted: {error.strerror}"
        ) from error


def chosen(installer: Installer | None) -> Installer:
    """The installer to use; raises `OptionError` if it is unknown or not installed."""
    if installer not in (None, *get_args(Installer)):
        raise OptionError(f"unknown installer '{installer}': choose {' or '.join(get_args(Installer))}")
    if installer == "uv" and not _uv():
        raise OptionError("uv is not installed: pip install uv, or use --installer pip")
    return installer or ("uv" if _uv() else "pip")


def _uv() -> str:
    """The path of uv, on the PATH or next to this interpreter; empty if it is not installed."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    return shutil.which("uv", path=places) or ""


def _make(folder: Path) -> None:
    """Make the folder of a new environment; raises `OptionError` if it exists or cannot be made."""
    name = folder.name
    if name in names():
        raise OptionError(
            f"environment '{name}' exists already: psiflow env update {name} updates it, "
            f"psiflow env remove {name} deletes it"
        )
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        owner = holder(folder / CLAIM)
        if owner is not None:
            raise OptionError(_busy(name, owner)) from error
        raise OptionError(
            f"environment '{name}' is incomplete: its creation was interrupted. Delete it: psiflow env remove {name}"
        ) from error
    except OSError as error:
        raise OptionError(
            f"{folder} cannot be made: {error.strerror}. Set PSIFLOW_ENVIRONMENTS to a folder that you may write"
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
    """Run an installer, with its output in a file.

    Args:
        name: the environment's name.
        command: the installer's command.
        log: the file for its output.
        remains: words for an error about where the file is, if it is kept.

    Raises:
        EnvironmentUnfit: the installer fails.
    """
    start = log.stat().st_size if log.exists() else 0
    with log.open("a") as stream:
        stream.write(f"$ {shlex.join(command)}\n")
        stream.flush()
        code = _ended(command, log.parent, stream.fileno())
    if code:
        output = log.read_bytes()[start:].decode(errors="replace")
        tail = "\n".join(f"  {line}" for line in output.rstrip().splitlines()[-TAIL:])
        raise EnvironmentUnfit(
            f"environment '{name}' could not be installed: {reason(output)}\n"
            f"The end of the installer's output{remains}:\n{tail}"
        )


def _ended(command: Sequence[str], folder: Path, output: int) -> int:
    """The exit code of a command. The command never outlives this process; on an interruption it ends first."""
    guarded = [*guard.command(os.getpid(), folder, isolated=True), *command]
    process = subprocess.Popen(guarded, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        family = guard.family(process.pid)
        process.terminate()  # the guard ends its command
        try:
            process.wait(10)
        finally:
            end(family)
            process.wait()
        raise


def reason(output: str) -> str:
    """Why an installer failed, in one line: its last error, or its last line."""
    lines = [line.strip(" │╰─▶>") for line in output.splitlines() if line.strip(" │╰─▶>")]
    starts = [number for number, line in enumerate(lines) if line.lower().startswith(("error", "×"))]
    last = " ".join(lines[starts[-1] :][:4] if starts else lines[-1:])
    return re.sub(r"^(error:?|×)\s*", "", last, flags=re.IGNORECASE)


def _maker(venv: Path) -> Installer:
    """The tool that made a virtual environment: environments made by uv have no pip."""
    marked = any(line.startswith("uv =") for line in (venv / "pyvenv.cfg").read_text().splitlines())
    return "uv" if marked else "pip"
