"""Installer arguments that pip and uv share: packages, `-e FOLDER`, `-c FILE`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from importlib.metadata import distributions, version
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from psiflow_core.errors import OptionError
from psiflow_core.structures import Plain


def words(packages: Sequence[str], editable: Sequence[str] = (), constraints: Sequence[str] = ()) -> tuple[str, ...]:
    """The arguments of an installer, with absolute paths: they mean the same in every working directory.

    Raises:
        OptionError: a folder or a file does not exist.
    """
    flagged = [("-e", _present(given)) for given in editable] + [("-c", _present(given)) for given in constraints]
    return (*(_absolute(given) for given in packages), *(word for pair in flagged for word in pair))


def joined(before: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """The arguments ``before`` and ``more``; if both name a project, that of ``more`` is kept."""
    by_project = {_project(pair): pair for pair in (*_pairs(before), *_pairs(more))}
    return tuple(word for pair in by_project.values() for word in pair)


def origin(name: str) -> tuple[str, ...]:
    """The installer's arguments for the driver's own copy of a distribution: its folder, file or version.

    Raises:
        OptionError: the folder or file that it was installed from no longer exists.
    """
    copies = distributions(name=name)  # a source tree in the working directory is one, without direct_url.json
    direct = next((text for copy in copies if (text := copy.read_text("direct_url.json"))), None)
    if direct is None:
        return (f"{name}=={version(name)}",)
    return _from_url(name, json.loads(direct))


def _from_url(name: str, direct: Plain) -> tuple[str, ...]:
    """The arguments for a direct URL (PEP 610)."""
    url = urlsplit(direct["url"])
    place = url2pathname(url.path)
    if url.scheme == "file" and not Path(place).exists():
        raise OptionError(
            f"{name} was installed from {place}, which no longer exists: install {name} again from its present place"
        )
    if "dir_info" in direct:
        return ("-e", place) if direct["dir_info"].get("editable") else (place,)
    within = f"#subdirectory={direct['subdirectory']}" if "subdirectory" in direct else ""
    if "vcs_info" in direct:
        vcs = direct["vcs_info"]
        return (f"{name} @ {vcs['vcs']}+{direct['url']}@{vcs['commit_id']}{within}",)
    return (f"{name} @ {direct['url']}{within}",)


def _absolute(given: str) -> str:
    """A package as given; a path, which installers recognise by its separator, becomes absolute."""
    path, extras = _split(given)
    is_path = os.sep in path or path.startswith((".", "~"))
    return f"{_place(path)}{extras}" if is_path and _place(path).exists() else given


def _present(given: str) -> str:
    path, extras = _split(given)
    if "://" in given:
        return given
    if not _place(path).exists():
        raise OptionError(f"{path} does not exist: give an existing folder or file")
    return f"{_place(path)}{extras}"


def _split(given: str) -> tuple[str, str]:
    """`./mace[gpu]` as `./mace` and `[gpu]`."""
    parts = re.fullmatch(r"(.+?)(\[[^]]*\])?", given)
    return (parts[1], parts[2] or "") if parts else (given, "")


def _place(path: str) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _pairs(given: Sequence[str]) -> list[tuple[str, ...]]:
    """The arguments, with each flag and its value together."""
    pairs: list[tuple[str, ...]] = []
    for word in given:
        if pairs and pairs[-1] in (("-e",), ("-c",)):
            pairs[-1] = (*pairs[-1], word)
        else:
            pairs.append((word,))
    return pairs


def _project(pair: tuple[str, ...]) -> str:
    """The normalised name of a project: the same for `Psiflow_MACE>=0.2` and `psiflow-mace`."""
    word = pair[-1]
    named = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\s*($|[\[<>=!~@;(]))", word)
    if pair[0] == "-c" or named is None:
        return pair[0] + _split(word)[0]
    return re.sub(r"[-_.]+", "-", named[0]).lower()
