"""A structure as a frame of extended XYZ, exact to the last bit.

Columns and numbers have all their digits, so that any program reads the structure and its label. Data that extended
XYZ cannot hold exactly (text, the options of a reference) are JSON at the end of the comment line, in ASE's format
(`key="_JSON …"`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from psiflow_core.constraints import fixed_atoms
from psiflow_core.structures import ELECTRONIC, KEPT_ARRAYS, canonical, is_labelled, label_of

SUFFIXES = (".xyz", ".extxyz")
"""The endings of file names that readers recognise as extended XYZ."""

OWN = "psiflow_"
"""The prefix of psiflow's own names in a comment line."""

TAKEN = {"lattice", "properties", "pbc", "origin", "cell_origin", *all_properties}
"""Names in a comment line that have a meaning for readers."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name that every reader accepts."""

EMPTY = '""'
"""Empty text, which ASE's reader cannot parse: it is stored in the JSON only."""


def frame(atoms: Atoms, remarks: Iterable[tuple[str, str]]) -> str:
    """A structure, with its label if it has one, as text.

    Args:
        atoms: the structure.
        remarks: psiflow's own data about it: names, without `OWN`, and values as written by `word` or `as_json`.
    """
    columns = list(_columns(atoms))
    properties = ":".join(f"{name}:{kind}:{len(rows[0])}" for name, kind, rows in columns)
    own = [f"{OWN}{name}={value}" for name, value in remarks if value != EMPTY]
    comment = [*_cell(atoms), f"Properties={properties}", *_numbers(atoms), *own]
    rows = (" ".join(word for _, _, column in columns for word in column[number]) for number in range(len(atoms)))
    return "\n".join([str(len(atoms)), " ".join(comment), *rows, ""])


def _columns(atoms: Atoms) -> Iterator[tuple[str, str, list[list[str]]]]:
    """Name, type and words of each column. Numbers have the fewest digits that reproduce them exactly."""
    yield "species", "S", [[chemical_symbols[number]] for number in atoms.numbers]
    yield "pos", "R", _words(atoms.positions)
    if is_labelled(atoms):
        yield "forces", "R", _words(label_of(atoms).forces)
    fixed = fixed_atoms(atoms)
    if fixed.any():
        yield "move_mask", "L", [["F" if held else "T"] for held in fixed]
    for name in (*KEPT_ARRAYS, *ELECTRONIC):
        if atoms.has(name):
            yield name, "R", _words(atoms.get_array(name))


def _words(values: Any) -> list[list[str]]:
    rows = np.asarray(values, float).reshape(len(values), -1)
    return [[repr(value) for value in row] for row in rows.tolist()]


def _cell(atoms: Atoms) -> Iterator[str]:
    """The cell. It comes first: some readers search for its bare name."""
    if np.asarray(atoms.cell).any():
        yield f'Lattice="{" ".join(repr(float(value)) for value in np.asarray(atoms.cell).flat)}"'
    yield f'pbc="{" ".join("T" if periodic else "F" for periodic in atoms.pbc)}"'


def _numbers(atoms: Atoms) -> Iterator[str]:
    """The label, charge and spin, and other entries of ``info`` with unambiguous names."""
    if is_labelled(atoms):
        label = label_of(atoms)
        yield f"energy={label.energy!r}"
        if label.stress is not None:
            full = voigt_6_to_full_3x3_stress(label.stress)
            yield f'stress="{" ".join(repr(float(value)) for value in full.flat)}"'
    for name, value in atoms.info.items():
        written = word(value)
        if NAME.fullmatch(name) and name.lower() not in TAKEN and not name.startswith(OWN) and written != EMPTY:
            yield f"{name}={written}"


def word(value: str | float | bool) -> str:
    """Text, a number or a truth value in a form for any reader; white space in text is simplified."""
    if isinstance(value, bool):
        return "T" if value else "F"
    return _quoted(" ".join(value.split())) if isinstance(value, str) else repr(value)


def as_json(value: Any) -> str:
    """JSON for ASE's reader, without spaces and equals signs, which other readers would take for names."""
    text = canonical(value).decode().replace(" ", "\\u0020").replace("=", "\\u003d")
    return _quoted(f"_JSON {text}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
