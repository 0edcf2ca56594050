"""The level of theory as sections of CP2K's input, from a user's own text or from the options by name."""

from __future__ import annotations

from psiflow_cp2k._input import Section, parse
from psiflow_cp2k.options import CP2KOptions

FUNCTIONALS = {
    "pbe": ("PBE", {}, "GTH-PBE", "PBE"),
    "revpbe": ("", {"PBE": "REVPBE"}, "GTH-PBE", "revPBE"),
    "pbesol": ("", {"PBE": "PBESOL"}, "GTH-PBE", "PBEsol"),
    "blyp": ("BLYP", {}, "GTH-BLYP", "BLYP"),
    "bp": ("", {"GGA_X_B88": "", "GGA_C_P86": ""}, "GTH-BP", "BP86"),
    "lda": ("PADE", {}, "GTH-PADE", ""),
}
"""CP2K's name, or the parts with their parametrization; the pseudopotential made for it; its name in D3's tables.

CP2K's own BP does not allow unpaired electrons, which free atoms have; libxc's parts do (0.8 meV apart for H2O).
"""

DISPERSIONS = {"d3bj": "DFTD3(BJ)", "d3": "DFTD3"}


def sections(options: CP2KOptions) -> Section:
    """The sections that all structures share: `GLOBAL` and `FORCE_EVAL`."""
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


def basis(options: CP2KOptions, symbol: str) -> str:
    return options.basis_of.get(symbol, options.basis)


def potential(options: CP2KOptions) -> str:
    return FUNCTIONALS[options.functional][2]


def _write_functional(options: CP2KOptions, xc: Section) -> None:
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
