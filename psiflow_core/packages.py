"""What to install, in the words that pip and uv share: packages as they take them, `-e FOLDER`, `-c FILE`."""

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
    """What to install, as the words of an installer: they mean the same in every working directory.

    Raises:
        OptionError: a folder or a file is not there.
    """
    flagged = [("-e", _present(given)) for given in editable] + [("-c", _present(given)) for given in constraints]
    return (*(_absolute(given) for given in packages), *(word for pair in flagged for word in pair))


def joined(before: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """The words of an installer and more of them; what is named again is as the latter have it."""
    by_project = {_project(pair): pair for pair in (*_pairs(before), *_pairs(more))}
    return tuple(word for pair in by_project.values() for word in pair)


def origin(name: str) -> tuple[str, ...]:
    """The words with which an installer gets the same distribution as the driver has: its folder, file or version.

    Raises:
        OptionError: it was installed from what is not there any more.
    """
    copies = distributions(name=name)  # a source tree in the working directory is one, and knows nothing
    told = next((found for copy in copies if (found := copy.read_text("direct_url.json"))), None)
    if told is None:
        return (f"{name}=={version(name)}",)
    return _from_url(name, json.loads(told))


def _from_url(name: str, told: Plain) -> tuple[str, ...]:
    """By PEP 610."""
    url = urlsplit(told["url"])
    place = url2pathname(url.path)
    if url.scheme == "file" and not Path(place).exists():
        raise OptionError(f"{name} was installed from {place}, which is gone: install {name} from where it is now")
    if "dir_info" in told:
        return ("-e", place) if told["dir_info"].get("editable") else (place,)
    within = f"#subdirectory={told['subdirectory']}" if "subdirectory" in told else ""
    if "vcs_info" in told:
        vcs = told["vcs_info"]
        return (f"{name} @ {vcs['vcs']}+{told['url']}@{vcs['commit_id']}{within}",)
    return (f"{name} @ {told['url']}{within}",)


def _absolute(given: str) -> str:
    """A package; if it is a path, of which installers know by a separator, it counts from the root."""
    path, extras = _split(given)
    is_path = os.sep in path or path.startswith((".", "~"))
    return f"{_place(path)}{extras}" if is_path and _place(path).exists() else given


def _present(given: str) -> str:
    path, extras = _split(given)
    if "://" in given:
        return given
    if not _place(path).exists():
        raise OptionError(f"there is no {path}")
    return f"{_place(path)}{extras}"


def _split(given: str) -> tuple[str, str]:
    """`./mace[gpu]` as `./mace` and `[gpu]`."""
    found = re.fullmatch(r"(.+?)(\[[^]]*\])?", given)
    return (found[1], found[2] or "") if found else (given, "")


def _place(path: str) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _pairs(given: Sequence[str]) -> list[tuple[str, ...]]:
    """Words, those of a flag together."""
    pairs: list[tuple[str, ...]] = []
    for word in given:
        if pairs and pairs[-1] in (("-e",), ("-c",)):
            pairs[-1] = (*pairs[-1], word)
        else:
            pairs.append((word,))
    return pairs


def _project(pair: tuple[str, ...]) -> str:
    """What is the same project however it is asked for: `Psiflow_MACE>=0.2` and `psiflow-mace`."""
    word = pair[-1]
    named = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\s*($|[\[<>=!~@;(]))", word)
    if pair[0] == "-c" or named is None:
        return pair[0] + _split(word)[0]
    return re.sub(r"[-_.]+", "-", named[0]).lower()
