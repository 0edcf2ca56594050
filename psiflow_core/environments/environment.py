"""Python environments other than the driver's own: their plugins, and the choice of an environment for a task.

The driver knows the command that starts an environment's Python, and the environment's *description* of itself
(`description.ask`). From it the driver checks options, chooses environments and refuses impossible requests.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from psiflow_core.components import Component, Kind, Spec
from psiflow_core.components.schema_reading import class_from
from psiflow_core.environments.description import MUST_AGREE, ask, ask_here, changes, versions
from psiflow_core.errors import EnvironmentUnfit, FileCorrupt, OptionError, PluginNotFound, did_you_mean
from psiflow_core.files import believing, read_json, write_json
from psiflow_core.registry.plugins import OFFICIAL, Registered, registry
from psiflow_core.structures import Plain

FOLDER = "PSIFLOW_ENVIRONMENTS"
"""The environment variable that names the folder of environments."""

DESCRIPTION = "environment.json"
"""The file of an environment's description, in its folder."""


@dataclass(frozen=True)
class Environment:
    """A Python environment and its description."""

    name: str
    launch: tuple[str, ...]
    """The words of the command that starts its Python: an interpreter, or a container's command and an interpreter."""
    description: Plain
    """Its own answer: the versions of `MUST_AGREE`, its `components`, and its `broken` plugins."""
    packages: tuple[str, ...] = ()
    """The packages that the user asked to install, if psiflow made the environment."""
    own: bool = False
    """Whether psiflow made it."""

    def find(self, kind: Kind, name: str) -> Registered | None:
        """One of its components, with a class rebuilt from the description; None if it has no such component."""
        for one in self.description["components"]:
            if (one["component"]["kind"], one["component"]["name"]) == (kind, name):
                return Registered(_class(json.dumps(one["component"])), one["distribution"], one["version"])
        return None

    def components(self) -> Iterator[Registered]:
        """All of its components."""
        for one in self.description["components"]:
            registered = self.find(one["component"]["kind"], one["component"]["name"])
            yield cast(Registered, registered)

    def misses(self, spec: Spec) -> str:
        """Why it cannot run a component; empty if it can."""
        registered = self.find(spec.kind, spec.name)
        if registered is None:
            return f"has no {spec.kind} '{spec.name}'"
        if spec.version and registered.version != spec.version:
            return f"has {registered.distribution} {registered.version}, but {spec.version} is requested"
        return ""

    def agree(self, engines: bool = False) -> Plain:
        """Compare the environment with the driver's interpreter and with its stored description.

        An environment that can be started on this machine describes itself again. Otherwise the stored description
        is used.

        Args:
            engines: also compare the versions of engines; this imports them.

        Returns:
            Its present description.

        Raises:
            EnvironmentUnfit: they differ; the message names the difference and the fix.
        """
        now = self._now(engines)
        for what, why in MUST_AGREE.items():
            here = versions()[what]
            if now[what] != here:
                problem = f"environment '{self.name}' has {what} {now[what]}, but the driver has {here}; {why}"
                raise EnvironmentUnfit(problem, self._fix(what))
        changed = list(changes(self.description, now))
        if changed:
            problem = f"environment '{self.name}' differs from its stored description: {'; '.join(changed)}"
            raise EnvironmentUnfit(problem, f"Store its description again: psiflow env update {self.name}")
        return now

    def to_plain(self) -> Plain:
        return {
            "name": self.name,
            "launch": list(self.launch),
            "description": self.description,
            "packages": list(self.packages),
            "own": self.own,
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Environment:
        fields = {**plain, "launch": tuple(plain["launch"]), "packages": tuple(plain["packages"])}
        return cls(**fields)

    def mend(self) -> str:
        """The command that reinstalls its packages."""
        if self.own:
            return f"psiflow env update {self.name}"
        return f"{shlex.join(self.launch)} -m pip install --force-reinstall PACKAGE; psiflow env update {self.name}"

    def anew(self) -> str:
        """The sentence with the commands that rebuild an environment made by psiflow."""
        words = shlex.join(["psiflow", "env", "create", self.name, *self.packages])
        return f"Rebuild it: psiflow env remove {self.name}; {words}"

    def _now(self, engines: bool) -> Plain:
        try:
            return ask(self.launch, engines)
        except FileNotFoundError as error:
            if self.own:
                problem = f"environment '{self.name}' cannot be started: {self.launch[0]} no longer exists"
                raise EnvironmentUnfit(problem, self.anew()) from error
            return self.description  # the environment exists on other machines only

    def _fix(self, what: str) -> str:
        if not self.own:
            wanted = " ".join(f"{name}=={versions()[name]}" for name in ("psiflow-core", "parsl"))
            return f"Install the driver's versions there: {shlex.join(self.launch)} -m pip install {wanted}"
        if what == "python":
            return self.anew()
        return f"Update it: {self.mend()}"


def here() -> Environment:
    """The driver's own interpreter, without a description of components: those are in `plugins.registry()`."""
    return Environment("", (sys.executable,), {**versions(), "components": [], "broken": {}})


def environments() -> list[Environment]:
    """All known environments: those adopted by this process first, then the stored ones by name."""
    stored = {name: read(name) for name in names() if name not in _adopted}
    return [*_adopted.values(), *stored.values()]


def names() -> list[str]:
    """The names of the environments with a stored description."""
    return sorted(file.parent.name for file in root().glob(f"*/{DESCRIPTION}"))


def known(name: str) -> Environment:
    """The environment of this name; raises `OptionError` if none has it."""
    every = sorted({*_adopted, *names()})
    if name not in every:
        raise OptionError(
            f"there is no environment '{name}'.{did_you_mean(name, every)} Environments: {', '.join(every) or 'none'}"
        )
    return _adopted.get(name) or read(name)


def read(name: str) -> Environment:
    """An environment from its stored description.

    Raises:
        EnvironmentUnfit: the description cannot be read.
    """
    file = root() / name / DESCRIPTION
    try:
        plain = read_json(file, ("name", "launch", "description", "packages"))
        with believing(file):
            stored = Environment.from_plain(plain)
            list(stored.components())
            for what in MUST_AGREE:
                stored.description[what]
        return stored
    except FileCorrupt as error:
        raise EnvironmentUnfit(
            f"the description of environment '{name}' cannot be read ({error})",
            f"Remove it, then create or adopt it again: psiflow env remove {name}",
        ) from error


def keep(environment: Environment) -> None:
    """Store the description of an environment."""
    write_json(root() / environment.name / DESCRIPTION, environment.to_plain(), durable=True)


def adopt(name: str, where: str | Path | Sequence[str]) -> Environment:
    """Use an existing environment in this process: a venv, a conda prefix, or an environment inside a container.

    Args:
        name: the name to give it.
        where: its folder, its interpreter, or the command that starts its Python:
            ``"apptainer exec mace.sif python"``. The command does not pass through a shell.

    Raises:
        EnvironmentUnfit: it does not start, or psiflow-core is not installed there.
        OptionError: ``where`` is neither a folder with a Python nor a command.
    """
    valid(name)
    launch = launch_words(where)
    _adopted[name] = Environment(name, launch, ask_here(launch))
    return _adopted[name]


def launch_words(where: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The words of the command that starts the Python of a folder, an interpreter or a command."""
    if not isinstance(where, str | Path):
        return launch_words(where[0]) if len(where) == 1 else tuple(where)
    path = Path(where).expanduser()
    if path.is_dir():
        python = path / "bin" / "python"
        if not python.exists():
            raise OptionError(f"{path} is not an environment: {python} is missing")
        return (str(python.absolute()),)
    if path.is_file():
        return (str(path.absolute()),)
    words = tuple(shlex.split(str(where)))
    if not words:
        raise OptionError("no environment was given: give its folder, its interpreter, or the command that starts it")
    return words


def choose(needs: Sequence[Spec]) -> Environment:
    """The first environment with all of these components; the driver's own is tried first.

    Raises:
        PluginNotFound: no environment has them all; the message names the missing plugin of each environment, and
            the command that adds it.
    """
    lacking = [spec for spec in needs if not _is_here(spec)]
    if not lacking:
        return here()
    tried = []
    for environment in environments():
        missing = [reason for spec in needs if (reason := environment.misses(spec))]
        if not missing:
            return environment
        tried.append((environment, missing))
    raise PluginNotFound(_no_environment(needs, lacking, tried))


def home(spec: Spec) -> Environment:
    """The environment in which a component can be used; raises `PluginNotFound`."""
    return choose([spec])


def elsewhere(asks: Sequence[Spec], own: Environment) -> dict[str, list[str]]:
    """By the names of the potentials that an environment lacks: the command that starts the Python of each."""
    lacking = [spec for spec in asks if (own.misses(spec) if own.name else not _is_here(spec))]
    return {spec.name: list(home(spec).launch) for spec in lacking}


def root() -> Path:
    """The folder of environments."""
    given = os.environ.get(FOLDER)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(given).absolute() if given else data / "psiflow" / "environments"


def valid(name: str) -> str:
    """The same name, if it is a legal name of an environment; raises `OptionError`."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise OptionError(f"an environment cannot be named {name!r}: use letters, digits, '.', '-' and '_' only")
    return name


_adopted: dict[str, Environment] = {}
"""The environments that this process has adopted."""


@lru_cache(maxsize=256)
def _class(component: str) -> type[Component]:
    return class_from(json.loads(component))


def _is_here(spec: Spec) -> bool:
    own = registry()
    return own.has(spec.kind, spec.name) and spec.version in ("", own.find(spec.kind, spec.name).version)


def _no_environment(
    needs: Sequence[Spec], lacking: Sequence[Spec], tried: Sequence[tuple[Environment, list[str]]]
) -> str:
    wanted = " and ".join(f"{spec.kind} '{spec.name}'" for spec in needs)
    packages = [spec.distribution or OFFICIAL.get((spec.kind, spec.name), f"PACKAGE-OF-{spec.name}") for spec in needs]
    why = [f"this interpreter has no {' and no '.join(f'{spec.kind} {spec.name!r}' for spec in lacking)}"]
    why += [f"environment '{environment.name}' {' and '.join(missing)}" for environment, missing in tried]
    near = min(tried, key=lambda one: len(one[1]), default=None)
    fix = f"psiflow env create NAME {' '.join(dict.fromkeys(packages))}"
    if near is not None and len(near[1]) < len(needs):
        named = [package for spec, package in zip(needs, packages, strict=True) if near[0].misses(spec)]
        fix = f"psiflow env update {near[0].name} {' '.join(dict.fromkeys(named))}"
    return f"no environment can run {wanted}: {'; '.join(why)}. Install it: {fix}"
