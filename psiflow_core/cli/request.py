"""`psiflow run`: a campaign as a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from psiflow_core import catalogue
from psiflow_core.components import Kind, Spec
from psiflow_core.context import Context, Work
from psiflow_core.environments import adopt
from psiflow_core.errors import OptionError, did_you_mean
from psiflow_core.foreign_labels import Names, read_labelled
from psiflow_core.learning.online import OnlineLearning, Result
from psiflow_core.structures import Plain

COMPONENTS: tuple[Kind, ...] = ("potential", "sampler", "reference")
PATHS = ("start", "folder", "test", "data", "model", "labels")
NAMES = tuple(field.name for field in fields(Names))
NEEDED = (*COMPONENTS, "budget", "start", "folder")


@dataclass(frozen=True)
class Request:
    """A campaign, ready to be run."""

    learning: OnlineLearning
    paths: dict[str, Path]
    """`start` and `folder`, and those of `test`, `data`, `model` and `labels` that were given."""
    names: dict[str, str]
    """What the labels of `data` are called in its file: energy, forces, stress or virial; empty for ASE's names."""
    pools: dict[str, Spec]
    """Executors by the kind of work; `everything` is the one for all that is not named; empty for this machine."""

    def run(self, progress: bool = True) -> Result:
        """Run the campaign, as `OnlineLearning.run` does."""
        arguments: dict[str, Any] = {**self.paths, "progress": progress}
        if self.names:
            arguments["data"] = read_labelled(self.paths["data"], **self.names)
        if not self.pools:
            return self.learning.run(**arguments)
        named = {work: spec for work, spec in self.pools.items() if work != "everything"}
        with Context(self.pools.get("everything", "local"), **named, folder=self.paths["folder"] / "pools") as context:
            return self.learning.run(**arguments, context=context)


def read_request(file: Path) -> Request:
    """Read and check a campaign's file.

    Raises:
        OptionError: the file cannot be read, a key is unknown or missing, or an option is wrong.
        PluginNotFound, PluginBroken: a component is not there.
        EnvironmentUnfit: an environment does not start, or psiflow is not installed there.
    """
    given = _load(file)
    known = [*OnlineLearning.model_fields, *PATHS, "context", "environments"]
    for key in given:
        if key not in known:
            raise OptionError(f"{file}: unknown key '{key}'.{did_you_mean(str(key), known)} Keys: {', '.join(known)}")
    missing = [key for key in NEEDED if key not in given]
    if missing:
        raise OptionError(f"{file}: {', '.join(missing)} missing")
    own = file.absolute().parent
    _adopt(given.get("environments"), own)
    options = {key: value for key, value in given.items() if key in OnlineLearning.model_fields}
    for kind in COMPONENTS:
        several = kind == "potential" and isinstance(given[kind], list)
        written = given[kind] if several else [given[kind]]
        found = [component(kind, one, kind) for one in written]
        options[kind] = found if several else found[0]
    data, names = _data(given.get("data"))
    placed = {**given, "data": data}
    paths = {key: own / _path(key, placed[key]) for key in PATHS if placed.get(key) is not None}
    return Request(OnlineLearning(**options), paths, names, _pools(given.get("context")))


def component(kind: Kind, given: object, where: str) -> Spec:
    """The spec of a component written as its name, or as `{name: …}` with its options.

    Raises:
        OptionError: it is neither, or an option is wrong.
        PluginNotFound, PluginBroken: it is not there.
    """
    written: Plain = {"name": given} if isinstance(given, str) else cast(Plain, given)
    if not isinstance(written, dict) or not isinstance(written.get("name"), str):
        raise OptionError(f"{where}: write a name, or {{name: …}} with options, not {given!r}")
    options = {key: value for key, value in written.items() if key != "name"}
    return catalogue.spec(kind, written["name"], options)


def _load(file: Path) -> Plain:
    try:
        given = yaml.safe_load(file.read_text())
    except OSError as error:
        raise OptionError(f"cannot read {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise OptionError(f"{file} holds no campaign: write keys and values, such as 'potential: mace'")
    return given


def _adopt(given: object, own: Path) -> None:
    """Use the environments that the file names: each is a folder, an interpreter, or the words that start one."""
    if given is None:
        return
    if not isinstance(given, dict):
        raise OptionError(f"environments: write {{name: folder or command}}, not {given!r}")
    for name, where in given.items():
        words = where if isinstance(where, list) else [where]
        if not words or not all(isinstance(word, str) for word in words):
            raise OptionError(f"environments.{name}: write a folder, or the words that start a Python, not {where!r}")
        there = own / Path(words[0]).expanduser()
        adopt(str(name), there if len(words) == 1 and there.exists() else words)


def _data(given: object) -> tuple[object, dict[str, str]]:
    """The file of the data, and what its labels are called there."""
    if not isinstance(given, dict):
        return given, {}
    names = {name: value for name, value in given.items() if name != "file"}
    known = ("file", *NAMES)
    for name, value in given.items():
        if name not in known or not isinstance(value, str):
            raise OptionError(
                f"data: {name}={value!r}; write names in {', '.join(known)}.{did_you_mean(str(name), known)}"
            )
    for name in ("file", "energy", "forces"):
        if name not in given:
            raise OptionError(f"data: {name} is missing; write {{file: …, energy: …, forces: …}}, and stress or virial")
    return given["file"], names


def _path(key: str, given: object) -> Path:
    if not isinstance(given, str):
        raise OptionError(f"{key}: write a path, not {given!r}")
    return Path(given).expanduser()


def _pools(given: object) -> dict[str, Spec]:
    """One executor for everything, or one by the kind of work; what YAML names by an alias is one pool."""
    if given is None:
        return {}
    if not isinstance(given, dict) or "name" in given:
        return {"everything": component("executor", given, "context")}
    for work in given:
        if work not in get_args(Work):
            hint = did_you_mean(str(work), get_args(Work))
            raise OptionError(f"context: unknown kind of work '{work}'.{hint} Kinds: {', '.join(get_args(Work))}")
    made: dict[int, Spec] = {}
    for work, written in given.items():
        made.setdefault(id(written), component("executor", written, f"context.{work}"))
    return {work: made[id(written)] for work, written in given.items()}
