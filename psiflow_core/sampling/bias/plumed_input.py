"""PLUMED's input: which lines psiflow can honour, and where their files go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

HILLS = "METAD"
"""The action that remembers, in a file that a walker takes along."""

REFUSED = {
    "RESTART": "psiflow restarts PLUMED by itself",
    "INCLUDE": "write the lines of that file here",
    "LOAD": "a worker may not have that code",
    "ENERGY": "a bias does not know the energy of the potential",
    "COMMITTOR": "walkers are stopped by psiflow's limits",
}
"""Actions that cannot work here, and why."""

FORGETFUL = ("ABMD", "ADAPTIVE_PATH", "EDS", "EXTENDED_LAGRANGIAN", "LOGMFD", "MAXENT", "METAINFERENCE", "PBMETAD")
FORGETFUL_MODULES = ("DRR", "FISST", "MAZE_", "OPES_", "VES_")
"""Actions whose memory is in no hills file, and the beginnings of the names of others."""

UNTAKEN = ("WALKERS_", "GRID_RFILE", "GRID_WFILE", "ACCELERATION", "FREQUENCY_ADAPTIVE", "TAU", "RESTART")
"""Beginnings of words of `METAD` that refer to other walkers, other files or the length of a time step."""

WRITERS = (HILLS, "PRINT", "DUMP")
"""Beginnings of the names of actions whose FILE is written."""


def actions(text: str) -> list[list[str]]:
    """The words of each action; comments and line breaks of long ones are taken away.

    Source: PLUMED's manual, *Getting started*: `#` begins a comment, `...` opens and closes an action of several
    lines, `ENDPLUMED` ends the input.

    Raises:
        ValueError: an action does not end.
    """
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "ENDPLUMED" and not inside:
            break
        if inside and words[0] == "...":
            inside = False
            continue
        if not inside:
            found.append([])
            inside = words[-1] == "..."
        found[-1] += [word for word in words if word != "..."]
    if inside:
        raise ValueError(f"'{' '.join(found[-1])[:60]}' does not end; close it by a line '...'")
    return found


def name_of(words: list[str]) -> str:
    """The name of an action: its first word after the label."""
    return next((word for word in words if not word.endswith(":")), "")


def refuse(text: str) -> None:
    """Raises `ValueError` for an input that a walker could not take along, or that only one machine can read."""
    lines = actions(text)
    if not lines:
        raise ValueError("it has no lines; give PLUMED's own input as text")
    for words in lines:
        name = name_of(words)
        _refuse_action(name)
        for word in words:
            _refuse_word(name, word)
    files = hills_files(text)
    if len(set(files)) < len(files):
        raise ValueError(f"two METAD have the file '{files[0]}'; give each a FILE of its own")


def hills_files(text: str) -> list[str]:
    """The names of the hills files."""
    return [_file(words) or "HILLS" for words in actions(text) if name_of(words) == HILLS]


def lines_in(text: str, folder: Path) -> Iterator[str]:
    """The actions, one a line; they write their files into a folder."""
    for words in actions(text):
        file = _file(words)
        if not name_of(words).startswith(WRITERS):
            yield " ".join(words)
        elif file or name_of(words) == HILLS:
            others = [word for word in words if not word.startswith("FILE=")]
            yield " ".join([*others, f"FILE={folder / (file or 'HILLS')}"])
        else:
            yield " ".join(words)


def _refuse_action(name: str) -> None:
    if name in REFUSED:
        raise ValueError(f"{name}: {REFUSED[name]}; take it out")
    if name in FORGETFUL or name.startswith(FORGETFUL_MODULES):
        raise ValueError(f"{name} remembers what a walker cannot take along to another worker; METAD is what it can")


def _refuse_word(name: str, word: str) -> None:
    key, _, value = word.partition("=")
    if key == "NLIST" or key.startswith("NL_"):
        raise ValueError(f"{word} of {name}: a neighbour list depends on earlier steps; take it out")
    if key == "STRIDE" and value != "1" and not name.startswith(WRITERS[1:]):
        raise ValueError(f"{word} of {name}: a bias acts at every step; take it out")
    if name == HILLS and (key.startswith(UNTAKEN) or word == "ADAPTIVE=DIFF"):
        raise ValueError(f"{word} of METAD cannot be honoured for a walker that moves between workers; take it out")
    if name.startswith(WRITERS):
        if key == "FILE" and "/" in value:
            raise ValueError(f"{word} of {name}: name the file without a folder; hills go with the walker")
    elif (key in ("FILE", "STRUCTURE") or value.endswith(".pdb")) and not value.startswith("/"):
        raise ValueError(f"{word} of {name}: give the absolute path of a file that every worker can read")


def _file(words: list[str]) -> str:
    return next((word.removeprefix("FILE=") for word in words if word.startswith("FILE=")), "")
