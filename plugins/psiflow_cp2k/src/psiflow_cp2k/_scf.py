"""The fall-back ladder: methods for the self-consistent field, tried in turn.

All rungs have the same threshold and start from atomic densities: a label does not depend on the rungs that failed
before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ase import Atoms

from psiflow_cp2k import _level
from psiflow_cp2k._input import Section
from psiflow_cp2k.options import CP2KOptions

INNER = 25
"""Steps of orbital transformation before its preconditioner is rebuilt."""
LARGE = 100
"""Number of atoms above which orbital transformation costs less than diagonalizing the Fock matrix."""
EMPTY = 0.2
"""Empty orbitals for smeared occupations, as a fraction of the occupied ones."""


class Rung(NamedTuple):
    name: str
    write: Callable[[CP2KOptions, Atoms, Section], None]
    """Writes the section `SCF`."""


def ladder(options: CP2KOptions, atoms: Atoms) -> list[Rung]:
    """The rungs for a structure, in order.

    DIIS and orbital transformation need a gap, integer occupations and Γ only; orbital transformation does not find the
    degenerate shells of a free atom. The user's own section comes first, except for a free atom, and for a molecule if
    the section smears occupations.
    """
    if len(atoms) == 1 and not atoms.pbc.any():
        return [DIIS, BROYDEN, SMALL_STEPS, TRANSFORMED]
    metallic = is_metallic(options)
    own = [AS_GIVEN] if options.force_eval and (atoms.pbc.all() or not metallic) else []
    if atoms.pbc.all() and metallic:
        return [*own, BROYDEN, SMALL_STEPS]
    return [*own, *([TRANSFORMED, DIIS] if len(atoms) > LARGE else [DIIS, TRANSFORMED]), BROYDEN, SMALL_STEPS]


def is_metallic(options: CP2KOptions) -> bool:
    """Whether a crystal has k-points or fractional occupations, which orbital transformation does not support."""
    dft = _level.sections(options).at("FORCE_EVAL/DFT")
    return options.smearing is not None or any(dft.find(path) is not None for path in ("KPOINTS", "SCF/SMEAR"))


def _as_given(options: CP2KOptions, atoms: Atoms, scf: Section) -> None:
    scf.unset("SCF_GUESS")


def _diis(options: CP2KOptions, atoms: Atoms, scf: Section) -> None:
    """Pulay, J. Comput. Chem. 3, 556 (1982): half as many steps as orbital transformation (H2O)."""
    _clear(options, scf)
    scf.drop("SMEAR")
    scf.unset("ADDED_MOS")
    scf.set("EPS_DIIS", 0.1)
    scf.at("DIAGONALIZATION")


def _transformed(options: CP2KOptions, atoms: Atoms, scf: Section) -> None:
    """VandeVondele and Hutter, J. Chem. Phys. 118, 4365 (2003)."""
    _clear(options, scf)
    scf.drop("SMEAR")
    scf.unset("ADDED_MOS")
    inner = min(INNER, options.max_scf)
    scf.set("MAX_SCF", inner)
    scf.at("OT").set("MINIMIZER", "DIIS").set("PRECONDITIONER", "FULL_ALL").set("ENERGY_GAP", "0.05")
    scf.at("OUTER_SCF").set("EPS_SCF", scf.get("EPS_SCF")).set("MAX_SCF", options.max_scf // inner)


def _broyden(options: CP2KOptions, atoms: Atoms, scf: Section) -> None:
    _clear(options, scf)
    scf.at("DIAGONALIZATION")
    scf.at("MIXING").set("METHOD", "BROYDEN_MIXING").set("ALPHA", 0.3).set("NBROYDEN", 8)
    _smear(options, atoms, scf)


def _small_steps(options: CP2KOptions, atoms: Atoms, scf: Section) -> None:
    _clear(options, scf)
    scf.at("DIAGONALIZATION")
    scf.at("MIXING").set("METHOD", "BROYDEN_MIXING").set("ALPHA", 0.05).set("BETA", 1.5).set("NBROYDEN", 14)
    _smear(options, atoms, scf)


def _clear(options: CP2KOptions, scf: Section) -> None:
    """Reduce a given SCF section to its threshold, electronic temperature and empty orbitals."""
    threshold = scf.get("EPS_SCF") or f"{options.eps_scf:.3E}"
    scf.drop("OT", "OUTER_SCF", "DIAGONALIZATION", "MIXING")
    scf.unset("SCF_GUESS")
    scf.set("MAX_SCF", options.max_scf).set("EPS_SCF", threshold)


def _smear(options: CP2KOptions, atoms: Atoms, scf: Section) -> None:
    """Only crystals are smeared: a free atom has the spin of its ground state."""
    if not atoms.pbc.all():
        scf.drop("SMEAR")
    elif options.smearing is not None:
        scf.set("ADDED_MOS", max(4, round(EMPTY * 4 * len(atoms))))
        smear = scf.at("SMEAR").set("METHOD", "FERMI_DIRAC")
        smear.set("ELECTRONIC_TEMPERATURE", options.smearing)


AS_GIVEN = Rung("as given", _as_given)
TRANSFORMED = Rung("orbital transformation", _transformed)
DIIS = Rung("diagonalization, DIIS", _diis)
BROYDEN = Rung("diagonalization, Broyden mixing", _broyden)
SMALL_STEPS = Rung("diagonalization, Broyden mixing in small steps", _small_steps)
