"""CP2K's input language: a tree of sections, read strictly and written back.

The valid keywords depend on the version of CP2K, so `_checks` asks the program that will run. This module reads the
syntax only: sections that open and close, keywords, comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

COMMENT = re.compile(r"""("[^"]*"|'[^']*')|[!#].*$""")
"""A quoted text, which is kept, or a comment, which is not."""
PREPROCESSOR = re.compile(r"^@|\$\{|\$[A-Za-z_]")


@dataclass
class Section:
    """A section: its name and parameter, its keywords in order, and its subsections."""

    name: str
    parameter: str = ""
    keywords: list[tuple[str, str]] = field(default_factory=list)
    """Name, in capitals, and value. In lines without a name, as in `&COORD`, the first word counts as the name."""
    sections: list[Section] = field(default_factory=list)

    def find(self, path: str) -> Section | None:
        """The first section at a path, for instance `DFT/SCF`."""
        name, _, rest = path.partition("/")
        for section in self.sections:
            if section.name == name:
                return section.find(rest) if rest else section
        return None

    def all(self, name: str) -> list[Section]:
        return [section for section in self.sections if section.name == name]

    def at(self, path: str) -> Section:
        """The section at a path; it is created if missing."""
        name, _, rest = path.partition("/")
        section = self.find(name)
        if section is None:
            section = Section(name)
            self.sections.append(section)
        return section.at(rest) if rest else section

    def drop(self, *names: str) -> None:
        """Remove sections."""
        self.sections = [section for section in self.sections if section.name not in names]

    def drop_everywhere(self, name: str) -> None:
        """Remove sections here and in all subsections."""
        self.drop(name)
        for section in self.sections:
            section.drop_everywhere(name)

    def get(self, *names: str) -> str | None:
        """The value of the first keyword that has one of these names."""
        return next((value for name, value in self.keywords if name in names), None)

    def set(self, name: str, value: object, *aliases: str) -> Section:
        """Set a keyword, in place of all values under this name and its aliases."""
        self.unset(name, *aliases)
        self.keywords.append((name, str(value)))
        return self

    def unset(self, *names: str) -> None:
        self.keywords = [(name, value) for name, value in self.keywords if name not in names]

    def copy(self) -> Section:
        return Section(self.name, self.parameter, list(self.keywords), [section.copy() for section in self.sections])

    def text(self) -> str:
        """The section as CP2K reads it."""
        return "\n".join(self._lines("")) + "\n"

    def _lines(self, margin: str) -> Iterator[str]:
        yield f"{margin}&{self.name} {self.parameter}".rstrip()
        yield from (f"{margin}  {name} {value}".rstrip() for name, value in self.keywords)
        for section in self.sections:
            yield from section._lines(margin + "  ")
        yield f"{margin}&END {self.name}"


def parse(text: str) -> Section:
    """The sections of a text, as subsections of a section without a name.

    Raises:
        ValueError: a section is not closed or is closed by another name, a line is outside of all sections, or the text
            needs CP2K's preprocessor. The error names the line.
    """
    root = Section("")
    open_sections = [root]
    for number, line in _logical_lines(text):
        _refuse_preprocessor(number, line)
        if line.upper().startswith("&END"):
            _close(open_sections, number, line)
        elif line.startswith("&"):
            open_sections.append(_opened(open_sections[-1], number, line))
        elif len(open_sections) == 1:
            raise ValueError(f"line {number}, '{line}', is outside of all sections; move it into one")
        else:
            name, _, value = _words(line)
            open_sections[-1].keywords.append((name.upper(), value))
    if len(open_sections) > 1:
        raise ValueError(f"section &{open_sections[-1].name} is not closed; write &END {open_sections[-1].name}")
    return root


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and their numbers; a backslash at the end joins a line to the next one."""
    joined = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = joined + COMMENT.sub(lambda match: match.group(1) or "", raw).strip()
        joined = line[:-1] + " " if line.endswith("\\") else ""
        if line and not joined:
            yield number, line


def _opened(parent: Section, number: int, line: str) -> Section:
    name, _, parameter = _words(line[1:])
    if not name:
        raise ValueError(f"line {number} opens a section without a name; write one after the '&'")
    section = Section(name.upper(), parameter)
    parent.sections.append(section)
    return section


def _close(open_sections: list[Section], number: int, line: str) -> None:
    name = _words(line[1:])[2].upper()
    if len(open_sections) == 1:
        raise ValueError(f"line {number}, '{line}', closes a section, but none is open; remove it")
    if name and name != open_sections[-1].name:
        raise ValueError(
            f"line {number}, '{line}', stands where &END {open_sections[-1].name} is expected; close that section first"
        )
    open_sections.pop()


def _words(line: str) -> tuple[str, str, str]:
    first, *rest = line.split(None, 1) or [""]
    return first, " ", rest[0] if rest else ""


def _refuse_preprocessor(number: int, line: str) -> None:
    if PREPROCESSOR.search(line):
        raise ValueError(
            f"line {number}, '{line}', is for CP2K's preprocessor, which may read other files; "
            "write it out in full, or use the input that cp2k --echo prints"
        )
