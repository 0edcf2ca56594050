"""A YAML file with the place of each of its values: errors name file, line, column and key."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from psiflow_core.components import Kind, Spec
from psiflow_core.environments import catalogue
from psiflow_core.errors import OptionError, PluginBroken, PluginNotFound, Problem, did_you_mean
from psiflow_core.structures import Plain

Key = str | int
"""A key of a mapping, or an index of a list."""


VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\})")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, without numbers to the base of sixty: `12:30:00` is a text, as for batch systems."""

    def whole_number(self, node: yaml.ScalarNode) -> int | str:
        return str(node.value) if ":" in node.value else self.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)


def value_of(text: str) -> Any:
    """A value as it is read in a file; raises `yaml.YAMLError`."""
    return yaml.load(text, _Loader)


class YamlFile:
    """The content of a YAML file, which is a mapping.

    Args:
        example: a line of such a file, for the error about one that is no mapping.

    Raises:
        OptionError: the file cannot be read, is not YAML or no mapping, or has a key twice.
    """

    def __init__(self, file: Path, example: str) -> None:
        self.file = file
        self.folder = file.absolute().parent
        """Relative paths in the file start here."""
        self._root, self.content = self._read(example)

    def place(self, *path: Key) -> str:
        """File, line and column of a key, or of the deepest part of the path that exists."""
        return self._at(self._find(path)[0])

    def refuse(self, words: str, *path: Key) -> OptionError:
        """The error about a key or its value."""
        return OptionError(f"{self.place(*path)}: {words}")

    def same(self, first: tuple[Key, ...], second: tuple[Key, ...]) -> bool:
        """Whether two values are one: an anchor, and its alias."""
        return self._find(first)[1] is self._find(second)[1]

    def only(self, known: Iterable[str], *path: Key) -> None:
        """Refuse the first unknown key of the mapping at a path; raises `OptionError`."""
        names = list(known)
        for key in self.at(*path):
            if key not in names:
                words = f"unknown key '{_called((*path, key))}'.{did_you_mean(str(key), names)}"
                raise self.refuse(f"{words} Keys: {', '.join(names)}", *path, key)

    def at(self, *path: Key) -> Any:
        """The value at a path that exists."""
        value: Any = self.content
        for key in path:
            value = value[key]
        return value

    def file_at(self, given: object, *path: Key) -> Path:
        """A path in this file: `~` and `$VARIABLES` are replaced, and relative ones start from its folder.

        Raises:
            OptionError: it is no text, or names a user or a variable that does not exist.
        """
        if not isinstance(given, str):
            raise self.refuse(f"{_called(path)}: write a path, not {given!r}", *path)
        full = os.path.expanduser(os.path.expandvars(given))
        if unset := VARIABLE.search(full):
            raise self.refuse(f"{_called(path)}: {given}: the variable {unset[0]} is not set", *path)
        if full.startswith("~"):
            raise self.refuse(f"{_called(path)}: {given}: there is no such user", *path)
        return self.folder / full

    def spec(self, kind: Kind, *path: Key) -> Spec:
        """The spec of a component, written as its name, or as `{name: …}` with its options.

        Raises:
            OptionError: it is neither, or an option is wrong.
            PluginNotFound, PluginBroken: it is not installed, or its plugin does not load.
        """
        given = self.at(*path)
        written: Plain = {"name": given} if isinstance(given, str) else given
        if not isinstance(written, dict) or not isinstance(written.get("name"), str):
            raise self.refuse(f"{_called(path)}: write a name, or {{name: …}} with options, not {given!r}", *path)
        options = {key: value for key, value in written.items() if key != "name"}
        with self.located(*path):
            return catalogue.spec(kind, written["name"], options)

    @contextlib.contextmanager
    def located(self, *path: Key) -> Iterator[None]:
        """Give errors about the options at a path their places in the file."""
        try:
            yield
        except OptionError as error:
            single = error.problems or [Problem((), str(error))]
            told = [f"{self.place(*path, *one.where)}: {self._words(path, one)}" for one in single]
            raise OptionError("\n".join(told)) from None
        except (PluginNotFound, PluginBroken) as error:
            raise type(error)(f"{self.place(*path, 'name')}: {_called(path)}: {error}") from None

    def _words(self, path: tuple[Key, ...], problem: Problem) -> str:
        node, quotes = self._find((*path, *problem.where))[1], ""
        if problem.wants_text and isinstance(node, yaml.ScalarNode):
            quotes = f"; put a text that looks like another value in quotes: '{node.value}'"
        return ": ".join(filter(None, [_called(path), problem.words + quotes]))

    def _read(self, example: str) -> tuple[yaml.MappingNode, Plain]:
        try:
            text = self.file.read_text()
            loader = _Loader(text)
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise OptionError(f"{self.file} has no keys: write keys and values, such as '{example}'")
            self._refuse_repetitions(root)
            content: Plain = loader.construct_document(root)
        except OSError as error:
            raise OptionError(f"cannot read {self.file}: {error.strerror}") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = "; ".join(filter(None, [error.problem, error.context]))
            raise OptionError(f"{self._at(mark)}: this is not YAML: {said}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise OptionError(f"{self.file} is not YAML: {' '.join(str(error).split())}") from error
        return root, content

    def _refuse_repetitions(self, root: yaml.Node) -> None:
        """Refuse a key that a mapping has twice, of which YAML would take the last one in silence."""
        ahead, seen = [root], {id(root)}
        while ahead:
            node = ahead.pop()
            parts: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                first: dict[str, yaml.Node] = {}
                for key, value in node.value:
                    if key.value != "<<" and (before := first.setdefault(str(key.value), key)) is not key:
                        line = before.start_mark.line + 1
                        raise OptionError(f"{self._at(key)}: key '{key.value}' is there already, in line {line}")
                    parts.append(value)
            elif isinstance(node, yaml.SequenceNode):
                parts = node.value
            new = [part for part in parts if id(part) not in seen]
            seen.update(map(id, new))
            ahead += new

    def _find(self, path: Iterable[Key]) -> tuple[yaml.Node, yaml.Node]:
        """The nodes of a key and its value, or those of the deepest part of the path that exists."""
        found: tuple[yaml.Node, yaml.Node] = (self._root, self._root)
        for key in path:
            part = _part(found[1], key)
            if part is None:
                return found
            found = part
        return found

    def _at(self, where: yaml.Node | yaml.Mark | None) -> str:
        mark = where.start_mark if isinstance(where, yaml.Node) else where
        return str(self.file) if mark is None else f"{self.file}:{mark.line + 1}:{mark.column + 1}"


def _part(node: yaml.Node, key: Key) -> tuple[yaml.Node, yaml.Node] | None:
    """The nodes of a key and its value; those of a list's element are the same."""
    if isinstance(node, yaml.MappingNode):
        found = [(name, value) for name, value in node.value if str(name.value) == str(key)]
        return found[-1] if found else None
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None


def _called(path: Iterable[Key]) -> str:
    return ".".join(map(str, path))
