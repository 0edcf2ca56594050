"""What CP2K cannot do, told before anything expensive is computed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms
from ase.data import chemical_symbols

from psiflow_core import checks, structures
from psiflow_core.components import Resources
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError
from psiflow_cp2k import _level, _output, _program, _run_input

if TYPE_CHECKING:
    from psiflow_cp2k.reference import CP2K

COARSE = 30.0
"""Cut-off of a dry run. [Ry]"""
QUICK = 120.0
"""Time that a dry run may take; it takes less than one second. [s]"""


def check_level(options: CP2K, given: Sequence[Atoms]) -> None:
    """Let CP2K read the input, basis sets and potentials of one structure of each composition, without computing.

    Raises:
        EngineMissing: CP2K does not start.
        OptionError: CP2K refuses the input, in its own words.
    """
    distinct = {(frozenset(atoms.symbols), bool(atoms.pbc.all())): atoms for atoms in given}
    for atoms in distinct.values() or [_any_atom(options)]:
        _check_input(options, atoms)


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


def _check_input(options: CP2K, atoms: Atoms) -> None:
    with tempfile.TemporaryDirectory(prefix="psiflow-cp2k-") as scratch:
        folder = Path(scratch)
        root = _run_input.of(options, atoms)
        root.at("GLOBAL").set("RUN_TYPE", "NONE")
        grids = root.at("FORCE_EVAL/DFT/MGRID")
        if grids.get("MULTIGRID_SET") is None:
            grids.set("CUTOFF", COARSE)
        _run_input.write(root, folder)
        try:
            code = _program.run(options, folder, Resources(), time.monotonic() + QUICK)
        except ReferenceFailed as error:
            raise EngineMissing(f"reference 'cp2k': {error}") from error
        failure, refused = _output.complaint(folder, code), _output.is_refusal(folder)
    if failure is None:
        return
    told = str(failure).removesuffix(f"; see {folder}")  # which is gone by now
    if refused:
        raise OptionError(f"reference 'cp2k', for {atoms.get_chemical_formula()}: {told}") from failure
    raise EngineMissing(f"reference 'cp2k': '{options.command}' does not work here: {told}") from failure


def _any_atom(options: CP2K) -> Atoms:
    """An atom that the level is likely to be meant for."""
    kinds = _level.sections(options).at("FORCE_EVAL/SUBSYS").all("KIND")
    named = [kind.parameter.capitalize() for kind in kinds if kind.parameter.capitalize() in chemical_symbols]
    return structures.isolated_atom(named[0] if named else "H")
