"""A structure in CP2K's input: cell, coordinates, charge, spin, and boundary conditions."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms
from ase.units import Bohr

from psiflow_core.electrons import electrons
from psiflow_core.structures import Array, charge_of, spin_of
from psiflow_cp2k import _level
from psiflow_cp2k._input import Section
from psiflow_cp2k.options import CP2KOptions

PROJECT = "label"
"""The prefix of CP2K's files."""
UNRESTRICTED = ("UKS", "UNRESTRICTED_KOHN_SHAM", "LSD", "SPIN_POLARIZED")
TIGHT_BINDING = ("XTB", "DFTB")
SOLVERS = ("POISSON_SOLVER", "POISSON", "PSOLVER")


def described(options: CP2KOptions, atoms: Atoms) -> Section:
    """The input for energy, forces and (if periodic) stress of a structure, without the method of its field."""
    root = _level.sections(options)
    root.at("GLOBAL").set("PROJECT", PROJECT).set("RUN_TYPE", "ENERGY_FORCE").set("PRINT_LEVEL", "MEDIUM")
    force_eval = root.at("FORCE_EVAL")
    force_eval.set("STRESS_TENSOR", "ANALYTICAL" if atoms.pbc.all() else "NONE")
    force_eval.at("PRINT/FORCES").set("FILENAME", "forces").set("NDIGITS", 14)
    if atoms.pbc.all():
        force_eval.at("PRINT/STRESS_TENSOR").set("FILENAME", "stress")
    _surround(force_eval, atoms)
    _sum_charges(force_eval.at("DFT"), atoms)
    _place(options, force_eval.at("SUBSYS"), atoms)
    _occupy(force_eval.at("DFT"), atoms)
    return root


def box_edge(options: CP2KOptions, atoms: Atoms) -> float:
    """Edge of the cubic box of a molecule. [Å]"""
    if options.box is not None:
        return options.box
    reach = float(np.abs(atoms.positions - atoms.positions.mean(axis=0)).max())
    return float(math.ceil(2 * (reach + options.vacuum) - 1e-6))


def is_open_shell(atoms: Atoms) -> bool:
    """Whether each spin needs its own orbitals."""
    return multiplicity(atoms) != 1 or moments(atoms) is not None


def multiplicity(atoms: Atoms) -> int:
    """2S+1: the structure's own; for a crystal without one, that of its summed moments, else the lowest possible."""
    if "spin" in electrons(atoms) or not atoms.pbc.any():
        return spin_of(atoms)
    given = moments(atoms)
    odd = (int(atoms.numbers.sum()) - charge_of(atoms)) % 2
    unpaired = 0.0 if given is None else abs(float(given.sum()))
    return 2 * round((unpaired - odd) / 2) + odd + 1


def moments(atoms: Atoms) -> Array | None:
    """The initial magnetic moments, shape (atoms,), if any is not zero. [μB]"""
    given = atoms.get_initial_magnetic_moments()
    return np.asarray(given, float) if given.any() else None


def _surround(force_eval: Section, atoms: Atoms) -> None:
    """Give the electrostatics the structure's periodicity."""
    poisson = force_eval.at("DFT/POISSON")
    if atoms.pbc.all():
        if (poisson.get("PERIODIC") or "XYZ").upper() != "XYZ":
            force_eval.at("DFT").drop("POISSON")
        return
    force_eval.at("DFT").drop("KPOINTS")
    if (poisson.get("PERIODIC") or "XYZ").upper() != "NONE":
        force_eval.at("DFT").drop("POISSON")
        force_eval.at("DFT/POISSON").set("PERIODIC", "NONE").set("POISSON_SOLVER", "WAVELET", *SOLVERS)


def _sum_charges(dft: Section, atoms: Atoms) -> None:
    """Sum the atomic charges of tight binding by Ewald's method if the structure is periodic, and only then.

    Ewald sums need a periodic Poisson solver: CP2K crashes with any other. Without them, charges do not see distant
    images. From 2026 on CP2K does this by itself.
    """
    qs = dft.find("QS")
    if qs is None:
        return
    for name, keyword in {"XTB": "DO_EWALD", "DFTB": "DO_EWALD", "SE": "PERIODIC"}.items():
        section = qs.find(name)
        if section is not None and not atoms.pbc.all():
            section.unset(keyword)
    method = (qs.get("METHOD") or "").upper()
    if atoms.pbc.all() and method in TIGHT_BINDING and qs.at(method).get("DO_EWALD") is None:
        qs.at(method).set("DO_EWALD", "T")


def _place(options: CP2KOptions, subsys: Section, atoms: Atoms) -> None:
    """Write cell, coordinates and kinds. Lengths are in ASE's bohr: results are converted back with ASE's units."""
    cell, positions = np.asarray(atoms.cell), atoms.positions
    if not atoms.pbc.any():
        edge = box_edge(options, atoms)
        cell, positions = np.eye(3) * edge, positions - positions.mean(axis=0) + edge / 2
    written = subsys.at("CELL")
    for name, vector in zip("ABC", cell / Bohr, strict=True):
        written.set(name, f"[bohr] {_row(vector)}")
    written.set("PERIODIC", "XYZ" if atoms.pbc.all() else "NONE")
    kinds = _kinds(atoms)
    coordinates = subsys.at("COORD").set("UNIT", "bohr")
    coordinates.keywords += [(kind, _row(x)) for kind, x in zip(kinds, positions / Bohr, strict=True)]
    given = moments(atoms)
    spins = np.zeros(len(atoms)) if given is None else given
    for kind, symbol, spin in sorted({*zip(kinds, atoms.get_chemical_symbols(), spins.tolist(), strict=True)}):
        _describe_kind(options, subsys, kind, symbol, spin)


def _row(vector: Array) -> str:
    return " ".join(f"{number:.15f}" for number in vector)


def _kinds(atoms: Atoms) -> list[str]:
    """Kind of each atom: its element, numbered by initial magnetic moment if there are any."""
    given = moments(atoms)
    symbols: list[str] = atoms.get_chemical_symbols()
    if given is None:
        return symbols
    several = {
        symbol: sorted({m for s, m in zip(symbols, given.tolist(), strict=True) if s == symbol}) for symbol in symbols
    }
    return [f"{s}_{several[s].index(m) + 1}" for s, m in zip(symbols, given.tolist(), strict=True)]


def _describe_kind(options: CP2KOptions, subsys: Section, kind: str, symbol: str, spin: float) -> None:
    known = {section.parameter.upper(): section for section in subsys.all("KIND")}
    section = known.get(kind.upper())
    if section is None and options.force_eval:
        section = known.get(symbol.upper(), known.get("DEFAULT", Section("KIND"))).copy()
        section.parameter = kind
        subsys.sections.append(section)
    elif section is None:
        section = Section("KIND", kind)
        section.set("BASIS_SET", _level.basis(options, symbol)).set("POTENTIAL", _level.potential(options))
        subsys.sections.append(section)
    section.set("ELEMENT", symbol, "ELEMENT_SYMBOL")
    if spin:
        section.set("MAGNETIZATION", spin)


def _occupy(dft: Section, atoms: Atoms) -> None:
    dft.set("CHARGE", charge_of(atoms)).set("MULTIPLICITY", multiplicity(atoms))
    if is_open_shell(atoms):
        dft.set("UKS", "T", *UNRESTRICTED)
