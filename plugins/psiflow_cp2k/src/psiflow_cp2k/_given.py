"""A user's own section of CP2K's input: read, checked, and without the parts that depend on the structure."""

from __future__ import annotations

from pathlib import Path

from psiflow_cp2k._input import Section, parse

STRUCTURES_OWN = ("CELL", "COORD", "VELOCITY", "SHELL_COORD", "CORE_COORD")
"""Sections in `SUBSYS` that psiflow writes for each structure."""


def as_read(given: str) -> str:
    """The relevant sections of a text or a file, in one form, whatever its comments and spaces.

    Raises:
        ValueError: the file does not exist, or the text is not CP2K input with exactly one FORCE_EVAL of METHOD QS.
    """
    root = parse(given if "&" in given else _content(Path(given.strip())))
    force_evals = root.all("FORCE_EVAL")
    if len(force_evals) != 1:
        raise ValueError(f"the input has {len(force_evals)} sections &FORCE_EVAL; write exactly one")
    method = (force_evals[0].get("METHOD") or "QS").upper()
    if method not in ("QS", "QUICKSTEP"):
        raise ValueError(f"METHOD {method} is not supported; use METHOD QS")
    if force_evals[0].find("DFT") is None:
        raise ValueError("&FORCE_EVAL has no section &DFT; add one")
    kept = Section("", sections=[*root.all("GLOBAL")[:1], force_evals[0].copy()])
    return "".join(section.text() for section in _without_structure(kept).sections)


def _content(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"neither a section (with '&') nor a readable file: {error}") from None


def _without_structure(root: Section) -> Section:
    root.drop_everywhere("PRINT")  # a user's file, unit or switch would hide the output from psiflow
    root.at("FORCE_EVAL/SUBSYS").drop(*STRUCTURES_OWN)
    topology = root.at("FORCE_EVAL/SUBSYS").find("TOPOLOGY")
    if topology is not None:
        topology.unset("COORD_FILE_NAME", "COORDINATE", "COORD_FILE_FORMAT", "COORDINATE_FORMAT")
        topology.unset("NUMBER_OF_ATOMS", "MULTIPLE_UNIT_CELL")
        topology.drop("CENTER_COORDINATES")
    dft = root.at("FORCE_EVAL/DFT")
    dft.unset("CHARGE", "MULTIPLICITY", "MULTIP", "WFN_RESTART_FILE_NAME", "RESTART_FILE_NAME")
    if root.find("GLOBAL") is not None:
        root.at("GLOBAL").unset("PROJECT", "PROJECT_NAME", "RUN_TYPE", "PRINT_LEVEL", "IOLEVEL", "WALLTIME", "WALLTI")
    return root
