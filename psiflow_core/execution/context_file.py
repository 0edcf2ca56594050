"""A context as YAML: the executors of each kind of work, and folders.

    pools:
      gpu: {name: slurm, partition: gpu, gpus: 1}
    train: gpu
    sample: gpu
    label: {name: slurm, partition: cpu, cores: 64}

A pool under `pools` is shared by all kinds of work that name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from psiflow_core.components import Spec
from psiflow_core.environments.catalogue import entries
from psiflow_core.errors import did_you_mean
from psiflow_core.execution.tasks.request import Work
from psiflow_core.execution.yaml_file import Key, YamlFile

PLACES = ("folder", "labels")

USERS = ("everything", *get_args(Work))

KEYS = ("pools", *USERS, *PLACES)

EXAMPLE = "everything: local"
"""A line of such a file."""


@dataclass(frozen=True)
class Described:
    """The arguments of a context."""

    executors: Mapping[str, Spec] = field(default_factory=dict)
    """By kind of work; `everything` is for all other kinds. A shared pool is one object."""
    places: Mapping[str, Path] = field(default_factory=dict)
    """`folder` and `labels`, if given."""

    @property
    def everything(self) -> Spec | str:
        """The first argument of a `Context`."""
        return self.executors.get("everything", "local")

    @property
    def arguments(self) -> dict[str, Any]:
        """All others."""
        return {**{work: self.executors.get(work) for work in get_args(Work)}, **self.places}


def read_context(file: str | Path) -> Described:
    """Read and check the file of a context.

    Raises:
        OptionError: the file cannot be read, a key is unknown, or an option is wrong; with file, line and column.
        PluginNotFound, PluginBroken: an executor is not installed, or its plugin does not load.
    """
    return described(YamlFile(Path(file).expanduser(), EXAMPLE))


def described(document: YamlFile, *section: Key) -> Described:
    """The context in a file, or in a section of it; raises as `read_context`."""
    given = document.at(*section)
    if not isinstance(given, dict):
        raise document.refuse(f"write the keys of a context, such as '{EXAMPLE}', not {given!r}", *section)
    document.only(KEYS, *section)
    pools = _pools(document, *section)
    executors: dict[str, Spec] = {}
    for user in USERS:
        if user in given:
            earlier = (other for other in executors if document.same((*section, other), (*section, user)))
            shared = next(earlier, None)
            executors[user] = executors[shared] if shared else _executor(document, pools, *section, user)
    return Described(executors, dict(_places(document, *section)))


def _pools(document: YamlFile, *section: Key) -> dict[str, Spec]:
    """The pools under `pools`, by their names."""
    given = document.at(*section).get("pools", {})
    where = (*section, "pools")
    if not isinstance(given, dict):
        raise document.refuse(f"write pools as {{name: executor}}, not {given!r}", *where)
    for name in given:
        if name in _installed():
            raise document.refuse(f"'{name}' is the name of an executor; call this pool otherwise", *where, name)
    return {str(name): document.spec("executor", *where, name) for name in given}


def _executor(document: YamlFile, pools: Mapping[str, Spec], *path: Key) -> Spec:
    """The executor of a kind of work: a pool by its name, or an executor."""
    given = document.at(*path)
    if isinstance(given, str) and given in pools:
        return pools[given]
    hint = did_you_mean(given, pools) if isinstance(given, str) and given not in _installed() else ""
    if hint:
        raise document.refuse(f"no pool '{given}'.{hint} Pools: {', '.join(pools)}", *path)
    return document.spec("executor", *path)


def _installed() -> set[str]:
    found = (entry.registered.component for entry in entries())
    return {component.name for component in found if component.kind == "executor"}


def _places(document: YamlFile, *section: Key) -> Iterator[tuple[str, Path]]:
    """The folders; relative ones start from the file's own."""
    given = document.at(*section)
    for key in PLACES:
        if key in given:
            yield key, document.file_at(given[key], *section, key)
