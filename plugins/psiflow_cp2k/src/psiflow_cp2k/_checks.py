"""Checks of the level of theory and of structures, before anything expensive is computed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ase import Atoms
from ase.data import chemical_symbols

from psiflow_core import checks, structures
from psiflow_core.components import Resources
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError
from psiflow_core.processes.programs import Allowance
from psiflow_cp2k import _failures, _level, _output, _program, _run_input
from psiflow_cp2k._input import Section
from psiflow_cp2k.options import CP2KOptions

COARSE = 30.0
"""Cut-off of a dry run, and of a trial. [Ry]"""
ROUGH = 1.0
"""Threshold of a trial's self-consistent field: the first step already meets it. [Eh]"""
CELL = 5.0
"""Edge of the cell of a trial. [Å]"""
QUICK = 120.0
"""Time limit of a dry run or a trial; each takes about a second. [s]"""


def check_level(options: CP2KOptions, given: Sequence[Atoms]) -> None:
    """Let CP2K read the input of one structure of each composition, without computing, and label one atom roughly.

    CP2K reads basis sets and potentials with the input. The atom shows whether psiflow can read energy, forces and
    stress of this version of CP2K, and whether the level works in a box, which the isolated atoms of a campaign need.

    Raises:
        EngineMissing: CP2K does not start, or crashes.
        OptionError: CP2K refuses the input (the error quotes it), or psiflow cannot read the output.
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
    """Refuse a structure that is periodic in some directions only, or has an impossible spin or non-collinear moments.

    Raises:
        StructureError: the structure is one of these; the error names the remedy.
    """
    formula = atoms.get_chemical_formula()
    if atoms.pbc.any() and not atoms.pbc.all():
        raise StructureError(
            f"{formula} is periodic in some directions only, which reference 'cp2k' does not support; "
            "set atoms.pbc = True and leave vacuum in the cell"
        )
    checks.check([atoms])
    if atoms.get_initial_magnetic_moments().ndim > 1:
        raise StructureError(f"{formula} has non-collinear initial magnetic moments; give one number per atom")


def _run(options: CP2KOptions, atoms: Atoms, changed: Callable[[Section], None]) -> None:
    """Run the changed input of a structure; read the results if it computes any."""
    with tempfile.TemporaryDirectory(prefix="psiflow-cp2k-") as scratch:
        folder = Path(scratch)
        root = _run_input.of(options, atoms)
        changed(root)
        _run_input.write(root, folder)
        try:
            code = _program.run(options, folder, 1, Allowance(Resources(wall_time=QUICK)))
        except ReferenceFailed as error:
            raise EngineMissing(f"reference 'cp2k': {error}") from error
        failure, refused = _failures.complaint(folder, code), _failures.is_refusal(folder)
        if failure is None and changed is _rough:
            failure, refused = _reading(folder, atoms), True
    if failure is None:
        return
    message = str(failure).removesuffix(f"; see {folder}")  # the temporary folder
    if refused:
        raise OptionError(f"reference 'cp2k', for {_named(atoms)}: {message}") from failure
    raise EngineMissing(
        f"reference 'cp2k': '{options.command}' does not work here, for {_named(atoms)}: {message}"
    ) from failure


def _dry(root: Section) -> None:
    """Read the input without computing anything."""
    root.at("GLOBAL").set("RUN_TYPE", "NONE")
    _coarsen(root)


def _rough(root: Section) -> None:
    """Compute a self-consistent field that need not converge."""
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
    """The reason why a label cannot be read from a run; None if it can."""
    try:
        _output.read(folder, len(atoms), bool(atoms.pbc.all()))
    except ReferenceFailed as failure:
        return failure
    return None


def _named(atoms: Atoms) -> str:
    formula: str = atoms.get_chemical_formula()
    return formula if atoms.pbc.any() or len(atoms) > 1 else f"an isolated {formula} atom"


def _any_atom(options: CP2KOptions) -> Atoms:
    """An atom of the first element that the level names, else hydrogen."""
    kinds = _level.sections(options).at("FORCE_EVAL/SUBSYS").all("KIND")
    named = [kind.parameter.capitalize() for kind in kinds if kind.parameter.capitalize() in chemical_symbols]
    return structures.isolated_atom(named[0] if named else "H")
