"""The complete input of one run: level of theory, structure, and method of the self-consistent field."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from psiflow_cp2k import _scf, _structure
from psiflow_cp2k._input import Section
from psiflow_cp2k.options import CP2KOptions

INPUT = "label.inp"
START = "start.wfn"
"""Orbitals to start from."""


def of(options: CP2KOptions, atoms: Atoms, rung: _scf.Rung | None = None) -> Section:
    """The input for a rung of the ladder, by default the first."""
    root = _structure.described(options, atoms)
    (rung or _scf.ladder(options, atoms)[0]).write(options, atoms, root.at("FORCE_EVAL/DFT/SCF"))
    return root


def threshold(root: Section) -> float:
    """Threshold of the self-consistent field. [Eh]"""
    return float((root.at("FORCE_EVAL/DFT/SCF").get("EPS_SCF") or "1E-5").upper().replace("D", "E"))


def write(root: Section, folder: Path, start: bytes | None = None) -> None:
    """Write the input, and the orbitals to start from."""
    if start is not None:
        (folder / START).write_bytes(start)
        dft = root.at("FORCE_EVAL/DFT")
        dft.set("WFN_RESTART_FILE_NAME", START)
        dft.at("SCF").set("SCF_GUESS", "RESTART")
    (folder / INPUT).write_text("".join(section.text() for section in root.sections))
