"""The whole input of one run: level, structure, and the way its self-consistent field is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from psiflow_cp2k import _scf, _structure
from psiflow_cp2k._input import Section

if TYPE_CHECKING:
    from psiflow_cp2k.reference import CP2K

INPUT = "label.inp"
START = "start.wfn"
"""Orbitals to start from."""


def of(options: CP2K, atoms: Atoms, rung: _scf.Rung | None = None) -> Section:
    """The input on a rung of the ladder, the first one by default."""
    root = _structure.described(options, atoms)
    (rung or _scf.ladder(options, atoms)[0]).write(options, atoms, root.at("FORCE_EVAL/DFT/SCF"))
    return root


def threshold(root: Section) -> float:
    """Of the self-consistent field. [Eh]"""
    return float((root.at("FORCE_EVAL/DFT/SCF").get("EPS_SCF") or "1E-5").upper().replace("D", "E"))


def write(root: Section, folder: Path, start: bytes | None = None) -> None:
    """Write the input, and the orbitals that it starts from."""
    if start is not None:
        (folder / START).write_bytes(start)
        dft = root.at("FORCE_EVAL/DFT")
        dft.set("WFN_RESTART_FILE_NAME", START)
        dft.at("SCF").set("SCF_GUESS", "RESTART")
    (folder / INPUT).write_text("".join(section.text() for section in root.sections))
