"""The level of theory as sections of CP2K's input: of a user's own text, or written from the options by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psiflow_cp2k._input import Section, parse

if TYPE_CHECKING:
    from psiflow_cp2k.reference import CP2K

FUNCTIONALS = {
    "pbe": ("PBE", {}, "GTH-PBE", "PBE"),
    "revpbe": ("", {"PBE": "REVPBE"}, "GTH-PBE", "revPBE"),
    "pbesol": ("", {"PBE": "PBESOL"}, "GTH-PBE", "PBEsol"),
    "blyp": ("BLYP", {}, "GTH-BLYP", "BLYP"),
    "bp": ("", {"GGA_X_B88": "", "GGA_C_P86": ""}, "GTH-BP", "BP86"),
    "lda": ("PADE", {}, "GTH-PADE", ""),
}
"""CP2K's name or the parts with their parametrization, the potential made for it, its name in the tables of D3.

CP2K's own BP cannot have unpaired electrons, as free atoms do: libxc's parts can (0.8 meV apart for H2O).
"""

DISPERSIONS = {"d3bj": "DFTD3(BJ)", "d3": "DFTD3"}

STRUCTURES_OWN = ("CELL", "COORD", "VELOCITY", "SHELL_COORD", "CORE_COORD")
"""Sections in `SUBSYS` that are written anew for each structure."""


def as_read(given: str) -> str:
    """A text or the path of a file, as the sections that count, in one form whatever its comments and spaces.

    Raises:
        ValueError: there is no such file, the text is not in CP2K's form, or holds no single FORCE_EVAL of QS.
    """
    root = parse(given if "&" in given else _content(Path(given.strip())))
    found = root.all("FORCE_EVAL")
    if len(found) != 1:
        raise ValueError(f"{len(found)} sections &FORCE_EVAL were found where one is needed")
    method = (found[0].get("METHOD") or "QS").upper()
    if method not in ("QS", "QUICKSTEP"):
        raise ValueError(f"METHOD {method} is none that psiflow knows how to run; METHOD QS is")
    if found[0].find("DFT") is None:
        raise ValueError("&FORCE_EVAL has no section &DFT")
    kept = Section("", sections=[*root.all("GLOBAL")[:1], found[0].copy()])
    return "".join(section.text() for section in _without_structure(kept).sections)


def sections(options: CP2K) -> Section:
    """What the input of every structure begins from: `GLOBAL` and `FORCE_EVAL`."""
    if options.force_eval:
        return parse(options.force_eval)
    root = Section("")
    force_eval = root.at("FORCE_EVAL").set("METHOD", "QS")
    dft = force_eval.at("DFT")
    dft.set("BASIS_SET_FILE_NAME", options.basis_file).set("POTENTIAL_FILE_NAME", options.potential_file)
    dft.at("QS").set("EPS_DEFAULT", f"{options.eps_default:.3E}")
    dft.at("MGRID").set("CUTOFF", options.cutoff).set("REL_CUTOFF", options.rel_cutoff)
    _write_functional(options, dft.at("XC"))
    if options.kpoints != (1, 1, 1):
        dft.at("KPOINTS").set("SCHEME", f"MONKHORST-PACK {' '.join(map(str, options.kpoints))}").set("SYMMETRY", "F")
    return root


def basis(options: CP2K, symbol: str) -> str:
    return options.basis_of.get(symbol, options.basis)


def potential(options: CP2K) -> str:
    return FUNCTIONALS[options.functional][2]


def _write_functional(options: CP2K, xc: Section) -> None:
    shortcut, parametrized, _, tabled = FUNCTIONALS[options.functional]
    functional = xc.at("XC_FUNCTIONAL")
    functional.parameter = shortcut
    for name, parametrization in parametrized.items():
        part = functional.at(name)
        if parametrization:
            part.set("PARAMETRIZATION", parametrization)
    if options.dispersion:
        xc.at("VDW_POTENTIAL").set("POTENTIAL_TYPE", "PAIR_POTENTIAL")
        pairs = xc.at("VDW_POTENTIAL/PAIR_POTENTIAL").set("TYPE", DISPERSIONS[options.dispersion])
        pairs.set("PARAMETER_FILE_NAME", "dftd3.dat").set("REFERENCE_FUNCTIONAL", tabled).set("R_CUTOFF", "15.0")


def _content(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"neither a section (with '&') nor a file that can be read: {error}") from None


def _without_structure(root: Section) -> Section:
    root.drop_everywhere("PRINT")  # psiflow reads what is printed: a file, unit or switch of the user's would hide it
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
