"""What CP2K cannot do, told before anything expensive is computed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms
from ase.data import chemical_symbols

from psiflow_core import checks, structures
from psiflow_core.components import Resources
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError
from psiflow_cp2k import _failures, _level, _output, _program, _run_input
from psiflow_cp2k._input import Section

if TYPE_CHECKING:
    from psiflow_cp2k.reference import CP2K

COARSE = 30.0
"""Cut-off of a dry run, and of a trial. [Ry]"""
ROUGH = 1.0
"""Threshold of a trial's self-consistent field: its first step is within it. [Eh]"""
CELL = 5.0
"""Edge of the cell of a trial. [Å]"""
QUICK = 120.0
"""Time that a dry run or a trial may take; each takes about a second. [s]"""


def check_level(options: CP2K, given: Sequence[Atoms]) -> None:
    """Let CP2K read the input of one structure of each composition, without computing, and label one atom roughly.

    Basis sets and potentials are read with the input. The atom tells whether energy, forces and stress of this version
    of CP2K can be read, and whether the level can be computed in a box, which the isolated atoms of a campaign need.

    Raises:
        EngineMissing: CP2K does not start, or crashes.
        OptionError: CP2K refuses the input, in its own words, or what it prints cannot be read.
    """
    distinct = {(frozenset(atoms.symbols), bool(atoms.pbc.all())): atoms for atoms in given}
    for atoms in distinct.values():
        _run(options, atoms, _dry)
    lightest = structures.isolated_atom(structures.species(given)[0]) if given else _any_atom(options)
    trials = [lightest]
    if any(atoms.pbc.all() for atoms in given):
        trials.append(Atoms(lightest.symbols, cell=[CELL] * 3, pbc=True, info=lightest.info))
    for atom in trials:
        _run(options, atom, _rough)


def check_structure(atoms: Atoms) -> None:
    """Refuse a structure that is periodic in some directions alone, or whose spin or moments CP2K cannot have.

    Raises:
        StructureError: what is wrong and what to do.
    """
    formula = atoms.get_chemical_formula()
    if atoms.pbc.any() and not atoms.pbc.all():
        raise StructureError(
            f"{formula} is periodic in some directions only, which reference 'cp2k' does not do; "
            "set atoms.pbc = True and leave vacuum in the cell"
        )
    checks.check([atoms])
    if atoms.get_initial_magnetic_moments().ndim > 1:
        raise StructureError(f"{formula} has initial magnetic moments that are not collinear; give one number an atom")


def _run(options: CP2K, atoms: Atoms, changed: Callable[[Section], None]) -> None:
    """Run the input of a structure, changed, and read what a run with energies says."""
    with tempfile.TemporaryDirectory(prefix="psiflow-cp2k-") as scratch:
        folder = Path(scratch)
        root = _run_input.of(options, atoms)
        changed(root)
        _run_input.write(root, folder)
        try:
            code = _program.run(options, folder, Resources(), time.monotonic() + QUICK)
        except ReferenceFailed as error:
            raise EngineMissing(f"reference 'cp2k': {error}") from error
        failure, refused = _failures.complaint(folder, code), _failures.is_refusal(folder)
        if failure is None and changed is _rough:
            failure, refused = _reading(folder, atoms), True
    if failure is None:
        return
    told = str(failure).removesuffix(f"; see {folder}")  # which is gone by now
    if refused:
        raise OptionError(f"reference 'cp2k', for {_named(atoms)}: {told}") from failure
    raise EngineMissing(
        f"reference 'cp2k': '{options.command}' does not work here, for {_named(atoms)}: {told}"
    ) from failure


def _dry(root: Section) -> None:
    """Nothing is computed."""
    root.at("GLOBAL").set("RUN_TYPE", "NONE")
    _coarsen(root)


def _rough(root: Section) -> None:
    """A field that need not converge."""
    scf = root.at("FORCE_EVAL/DFT/SCF").set("EPS_SCF", ROUGH)
    outer = scf.find("OUTER_SCF")
    if outer is not None:
        outer.set("EPS_SCF", ROUGH)
    _coarsen(root)


def _coarsen(root: Section) -> None:
    grids = root.at("FORCE_EVAL/DFT/MGRID")
    if grids.get("MULTIGRID_SET") is None:
        grids.set("CUTOFF", COARSE)


def _reading(folder: Path, atoms: Atoms) -> ReferenceFailed | None:
    """Why a label cannot be read from a run; None if it can."""
    try:
        _output.read(folder, len(atoms), bool(atoms.pbc.all()))
    except ReferenceFailed as failure:
        return failure
    return None


def _named(atoms: Atoms) -> str:
    formula: str = atoms.get_chemical_formula()
    return formula if atoms.pbc.any() or len(atoms) > 1 else f"an isolated {formula} atom"


def _any_atom(options: CP2K) -> Atoms:
    """An atom that the level is likely to be meant for."""
    kinds = _level.sections(options).at("FORCE_EVAL/SUBSYS").all("KIND")
    named = [kind.parameter.capitalize() for kind in kinds if kind.parameter.capitalize() in chemical_symbols]
    return structures.isolated_atom(named[0] if named else "H")
