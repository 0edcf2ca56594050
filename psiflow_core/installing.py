"""Virtual environments of psiflow's own: made, brought up to date and removed. Nothing is printed here."""

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

from psiflow_core import guard
from psiflow_core.claims import Owner, claimed, holder
from psiflow_core.environments import RECORD, Environment, keep, known, launch_words, names, read, root, valid
from psiflow_core.errors import EnvironmentUnfit, OptionError
from psiflow_core.leases import end
from psiflow_core.offers import ask_here
from psiflow_core.packages import joined, origin

Installer = Literal["uv", "pip"]

VENV = "venv"
CLAIM = "at-work.json"
"""Says who makes or changes an environment, in its folder."""

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
    step("asking it what it offers")
    made = Environment(name, (str(python),), ask_here((str(python),), engines=True), tuple(wanted), own=True)
    keep(made)
    return made


@contextmanager
def _at_work(name: str) -> Iterator[None]:
    """Keep others from an environment while it is made or changed; raises `OptionError` where another is at it."""
    with claimed(root() / name / CLAIM) as other:
        if other is not None:
            raise OptionError(_busy(name, other))
        yield


def _busy(name: str, owner: Owner) -> str:
    return f"{owner} is at work on environment '{name}': wait for it, or end it"


def adopt(name: str, where: Sequence[str], step: Step = lambda _: None) -> Environment:
    """Record an environment that exists, for every process; `environments.adopt` is for one.

    Raises:
        EnvironmentUnfit: it does not start, or psiflow-core is not installed there.
        OptionError: the name is that of an environment that psiflow has made, or cannot be one.
    """
    step("asking it what it offers")
    folder = root() / valid(name)
    if folder.exists() and not (name in names() and not read(name).own):
        _make(folder)
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
    with _at_work(environment.name):
        return _updated(environment, packages, step)


def _updated(environment: Environment, packages: tuple[str, ...], step: Step) -> Environment:
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
        OptionError: there is none, another process is at work on it, or its folder holds what psiflow has not put
            there.
    """
    folder = root() / valid(name)
    if not folder.is_dir():
        known(name)  # raises, with the names that there are
    owner = holder(folder / CLAIM)
    if owner is not None:
        raise OptionError(_busy(name, owner))
    (folder / CLAIM).unlink(missing_ok=True)
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


def _make(folder: Path) -> None:
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
        owner = holder(folder / CLAIM)
        if owner is not None:
            raise OptionError(_busy(name, owner)) from error
        raise OptionError(
            f"the making of environment '{name}' was cut short; clear it away: psiflow env remove {name}"
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
        code = _ended(command, log.parent, stream.fileno())
    if code:
        said = log.read_bytes()[start:].decode(errors="replace")
        tail = "\n".join(f"  {line}" for line in said.rstrip().splitlines()[-TAIL:])
        raise EnvironmentUnfit(
            f"environment '{name}' could not be installed: {reason(said)}\nThe end of what was said:{remains}\n{tail}"
        )


def _ended(command: Sequence[str], folder: Path, output: int) -> int:
    """The exit code of a command; it never outlives this process, and when this is cut short, it has ended before."""
    guarded = [*guard.command(os.getpid(), folder, isolated=True), *command]
    process = subprocess.Popen(guarded, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        family = guard.family(process.pid)
        process.terminate()  # the guard ends what it guards
        try:
            process.wait(10)
        finally:
            end(family)
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
