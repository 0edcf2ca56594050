"""Python environments beside the driver's own, each with plugins of its own; what they offer, and which serves a task.

An environment is known by the words that start its Python and by its *record*: what it answered when it was asked
what it offers. From the record the driver checks options, chooses environments and refuses what cannot work.
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
from psiflow_core.errors import EnvironmentUnfit, FileCorrupt, OptionError, PluginNotFound, did_you_mean
from psiflow_core.files import believing, read_json, write_json
from psiflow_core.offers import MUST_AGREE, ask, ask_here, changes, versions
from psiflow_core.plugins import OFFICIAL, Registered, registry
from psiflow_core.recorded import recorded
from psiflow_core.structures import Plain

FOLDER = "PSIFLOW_ENVIRONMENTS"
"""The environment variable that names the folder of environments."""

RECORD = "environment.json"


@dataclass(frozen=True)
class Environment:
    """A Python environment, and what it offers."""

    name: str
    launch: tuple[str, ...]
    """The words that start its Python: an interpreter, or a container's command before one."""
    offers: Plain
    """What it answered: versions of `MUST_AGREE`, `components`, and `broken` plugins."""
    packages: tuple[str, ...] = ()
    """What was asked to be installed, for an environment that psiflow has made."""
    own: bool = False
    """Whether psiflow has made it."""

    def find(self, kind: Kind, name: str) -> Registered | None:
        """A component that is there; its class is rebuilt from the record."""
        for offer in self.offers["components"]:
            if (offer["component"]["kind"], offer["component"]["name"]) == (kind, name):
                return Registered(_class(json.dumps(offer["component"])), offer["distribution"], offer["version"])
        return None

    def components(self) -> Iterator[Registered]:
        """Every component that is there."""
        for offer in self.offers["components"]:
            found = self.find(offer["component"]["kind"], offer["component"]["name"])
            yield cast(Registered, found)

    def misses(self, spec: Spec) -> str:
        """Why it cannot run a component; empty if it can."""
        found = self.find(spec.kind, spec.name)
        if found is None:
            return f"has no {spec.kind} '{spec.name}'"
        if spec.version and found.version != spec.version:
            return f"has {found.distribution} {found.version}, and {spec.version} is asked for"
        return ""

    def agree(self, engines: bool = False) -> Plain:
        """Compare with the driver's interpreter what has to be the same, and with the record what it was.

        An environment that can be started on this machine is asked again; of one that cannot, the record counts.

        Args:
            engines: compare the versions of engines too, which imports them.

        Returns:
            What it offers now, as `offers`.

        Raises:
            EnvironmentUnfit: what differs, and how to mend it.
        """
        now = self._now(engines)
        for what, why in MUST_AGREE.items():
            here = versions()[what]
            if now[what] != here:
                found = f"environment '{self.name}' has {what} {now[what]}, and the driver {here}; {why}"
                raise EnvironmentUnfit(found, self._fix(what))
        changed = list(changes(self.offers, now))
        if changed:
            found = f"environment '{self.name}' is not as it was recorded: {'; '.join(changed)}"
            raise EnvironmentUnfit(found, f"Have it recorded again: psiflow env update {self.name}")
        return now

    def to_plain(self) -> Plain:
        return {
            "name": self.name,
            "launch": list(self.launch),
            "offers": self.offers,
            "packages": list(self.packages),
            "own": self.own,
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Environment:
        told = {**plain, "launch": tuple(plain["launch"]), "packages": tuple(plain["packages"])}
        return cls(**told)

    def mend(self) -> str:
        """The command that installs again what is there."""
        if self.own:
            return f"psiflow env update {self.name}"
        return f"{shlex.join(self.launch)} -m pip install --force-reinstall PACKAGE; psiflow env update {self.name}"

    def anew(self) -> str:
        """What makes an environment of psiflow's own a second time, as a sentence."""
        words = shlex.join(["psiflow", "env", "create", self.name, *self.packages])
        return f"Make it anew: psiflow env remove {self.name}; {words}"

    def _now(self, engines: bool) -> Plain:
        try:
            return ask(self.launch, engines)
        except FileNotFoundError as error:
            if self.own:
                found = f"environment '{self.name}' cannot be started: {self.launch[0]} is gone"
                raise EnvironmentUnfit(found, self.anew()) from error
            return self.offers  # it is started on other machines only

    def _fix(self, what: str) -> str:
        if not self.own:
            wanted = " ".join(f"{name}=={versions()[name]}" for name in ("psiflow-core", "parsl"))
            return f"Install the driver's versions there: {shlex.join(self.launch)} -m pip install {wanted}"
        if what == "python":
            return self.anew()
        return f"Bring it up to date: {self.mend()}"


def here() -> Environment:
    """The driver's own interpreter, without a record: its components are `plugins.registry()`'s."""
    return Environment("", (sys.executable,), {**versions(), "components": [], "broken": {}})


def environments() -> list[Environment]:
    """Every environment that is known, those adopted by this process first, then by name."""
    kept = {name: read(name) for name in names() if name not in _adopted}
    return [*_adopted.values(), *kept.values()]


def names() -> list[str]:
    """The names of the environments that have a record."""
    return sorted(file.parent.name for file in root().glob(f"*/{RECORD}"))


def known(name: str) -> Environment:
    """The environment of this name; raises `OptionError` where there is none."""
    there = sorted({*_adopted, *names()})
    if name not in there:
        raise OptionError(
            f"there is no environment '{name}'.{did_you_mean(name, there)} There are: {', '.join(there) or 'none'}"
        )
    return _adopted.get(name) or read(name)


def read(name: str) -> Environment:
    """An environment from its record.

    Raises:
        EnvironmentUnfit: the record cannot be read.
    """
    file = root() / name / RECORD
    try:
        plain = read_json(file, ("name", "launch", "offers", "packages"))
        with believing(file):
            found = Environment.from_plain(plain)
            list(found.components())
            for what in MUST_AGREE:
                found.offers[what]
        return found
    except FileCorrupt as error:
        raise EnvironmentUnfit(
            f"the record of environment '{name}' cannot be read ({error})",
            f"Remove it, then create or adopt it again: psiflow env remove {name}",
        ) from error


def keep(environment: Environment) -> None:
    """Write the record of an environment."""
    write_json(root() / environment.name / RECORD, environment.to_plain(), durable=True)


def adopt(name: str, where: str | Path | Sequence[str]) -> Environment:
    """Use an environment that exists, in this process: a venv, a conda prefix, or one inside a container.

    Args:
        where: its folder, its interpreter, or the words that start its Python:
            ``"apptainer exec mace.sif python"``. No shell reads them.

    Raises:
        EnvironmentUnfit: it does not start, or psiflow-core is not installed there.
        OptionError: it is neither a folder with a Python nor a command.
    """
    valid(name)
    launch = launch_words(where)
    _adopted[name] = Environment(name, launch, ask_here(launch))
    return _adopted[name]


def launch_words(where: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The words that start the Python of a folder, an interpreter or a command."""
    if not isinstance(where, str | Path):
        return launch_words(where[0]) if len(where) == 1 else tuple(where)
    path = Path(where).expanduser()
    if path.is_dir():
        python = path / "bin" / "python"
        if not python.exists():
            raise OptionError(f"{path} is no environment: {python} is missing")
        return (str(python.absolute()),)
    if path.is_file():
        return (str(path.absolute()),)
    words = tuple(shlex.split(str(where)))
    if not words:
        raise OptionError("an environment is a folder, an interpreter, or the words that start one; nothing was given")
    return words


def choose(needs: Sequence[Spec]) -> Environment:
    """The first environment that has all of these components; the driver's own comes first.

    Raises:
        PluginNotFound: there is none; which plugin is missing where, and the command that adds it.
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
    """Where a component can be used; raises `PluginNotFound`."""
    return choose([spec])


def elsewhere(asks: Sequence[Spec], own: Environment) -> dict[str, list[str]]:
    """What starts the Python of those potentials that an environment lacks, by their names."""
    lacking = [spec for spec in asks if (own.misses(spec) if own.name else not _is_here(spec))]
    return {spec.name: list(home(spec).launch) for spec in lacking}


def root() -> Path:
    """The folder of environments."""
    given = os.environ.get(FOLDER)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(given).absolute() if given else data / "psiflow" / "environments"


def valid(name: str) -> str:
    """The name, if an environment can be called so; raises `OptionError`."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise OptionError(f"an environment cannot be called {name!r}: letters, digits, '.', '-' and '_' make a name")
    return name


_adopted: dict[str, Environment] = {}
"""Environments that this process has adopted."""


@lru_cache(maxsize=256)
def _class(component: str) -> type[Component]:
    return recorded(json.loads(component))


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
    return f"no environment can run {wanted}: {'; '.join(why)}. This adds it: {fix}"
