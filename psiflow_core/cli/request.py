"""`psiflow run`: a campaign as a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from psiflow_core.components import Kind
from psiflow_core.environments.environment import adopt
from psiflow_core.errors import did_you_mean
from psiflow_core.execution.context import Context
from psiflow_core.execution.context_file import Described, described, read_context
from psiflow_core.execution.yaml_file import YamlFile
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.foreign import Names
from psiflow_core.online import OnlineLearning, Result

COMPONENTS: tuple[Kind, ...] = ("potential", "sampler", "reference")
PATHS = ("start", "folder", "test", "data", "model", "labels")
NAMES = tuple(field.name for field in fields(Names))
NEEDED = (*COMPONENTS, "budget", "start", "folder")


@dataclass(frozen=True)
class Request:
    """A campaign, ready to be run."""

    learning: OnlineLearning
    paths: dict[str, Path]
    """`start` and `folder`, and `test`, `data`, `model` and `labels` if given."""
    names: dict[str, str]
    """The names of energy, forces, stress or virial in the file of `data`; empty for ASE's names."""
    context: Described
    """Where it runs; without executors, on this machine."""

    def run(self, progress: bool = True) -> Result:
        """Run the campaign, as `OnlineLearning.run` does."""
        arguments = {"folder": self.paths["folder"], **self.context.arguments}
        with Context(self.context.everything, **arguments) as context:
            return self.run_on(context, progress)

    def run_on(self, context: Context, progress: bool = True, **changes: Any) -> Result:
        """Run the campaign on these workers; `changes` are other arguments of `OnlineLearning.run`."""
        arguments: dict[str, Any] = {**self.paths, "progress": progress, **changes}
        if self.names:
            arguments["data"] = Dataset.load(self.paths["data"], **self.names)
        return self.learning.run(**arguments, context=context)


def read_request(file: Path) -> Request:
    """Read and check a campaign's file.

    Raises:
        OptionError: the file cannot be read, a key is unknown or missing, or an option is wrong.
        PluginNotFound, PluginBroken: a component is not installed, or its plugin does not load.
        EnvironmentUnfit: an environment does not start, or psiflow is not installed there.
    """
    document = YamlFile(file, "potential: mace")
    document.only([*OnlineLearning.model_fields, *PATHS, "context", "environments"])
    given = document.content
    missing = [key for key in NEEDED if key not in given]
    if missing:
        raise document.refuse(f"missing keys: {', '.join(missing)}")
    _adopt(document)
    options = {key: value for key, value in given.items() if key in OnlineLearning.model_fields}
    for kind in COMPONENTS:
        several = kind == "potential" and isinstance(given[kind], list)
        paths = [(kind, number) for number in range(len(given[kind]))] if several else [(kind,)]
        specs = [document.spec(kind, *path) for path in paths]
        options[kind] = specs if several else specs[0]
    with document.located():
        learning = OnlineLearning(**options)
    data, names = _data(document)
    context = _context(document)
    placed = {**given, "data": data}
    places = {key: document.file_at(placed[key], key) for key in PATHS if placed.get(key) is not None}
    shared = {"labels": context.places["labels"]} if "labels" in context.places else {}
    return Request(learning, {**shared, **places}, names, context)


def _adopt(document: YamlFile) -> None:
    """Adopt the environments in the file: each is a folder, an interpreter, or the command that starts one."""
    given = document.content.get("environments") or {}
    if not isinstance(given, dict):
        raise document.refuse(f"environments: write {{name: folder or command}}, not {given!r}", "environments")
    for name, where in given.items():
        words = where if isinstance(where, list) else [where]
        if not words or not all(isinstance(word, str) for word in words):
            said = f"environments.{name}: write a folder, or the command that starts a Python, not {where!r}"
            raise document.refuse(said, "environments", name)
        there = document.file_at(words[0], "environments", name)
        adopt(str(name), there if len(words) == 1 and there.exists() else words)


def _context(document: YamlFile) -> Described:
    """The context, written here or in a file of its own."""
    given = document.content.get("context")
    if given is None:
        return Described()
    if not isinstance(given, str):
        return described(document, "context")
    file = document.file_at(given, "context")
    if not file.is_file():
        said = f"no file '{given}'; write the file of a context, or its keys, such as {{everything: local}}"
        raise document.refuse(f"context: {said}", "context")
    return read_context(file)


def _data(document: YamlFile) -> tuple[object, dict[str, str]]:
    """The file of the data, and the names of its labels."""
    given = document.content.get("data")
    if not isinstance(given, dict):
        return given, {}
    names = {name: value for name, value in given.items() if name != "file"}
    known = ("file", *NAMES)
    for name, value in given.items():
        if name not in known or not isinstance(value, str):
            said = f"data: {name}={value!r}; write names in {', '.join(known)}.{did_you_mean(str(name), known)}"
            raise document.refuse(said, "data", name)
    for name in ("file", "energy", "forces"):
        if name not in given:
            said = f"data: {name} is missing; write {{file: …, energy: …, forces: …}}, and stress or virial"
            raise document.refuse(said, "data")
    return given["file"], names
