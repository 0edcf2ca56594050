"""One label with CP2K: input, fall-back ladder, result."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from psiflow_core.components import LabelTask, Resources
from psiflow_core.errors import ReferenceFailed, StructureError
from psiflow_core.structures import Label
from psiflow_cp2k import _checks, _failures, _output, _program, _run_input, _scf, _start

if TYPE_CHECKING:
    from psiflow_cp2k.reference import CP2K

MARGIN = 10.0
"""Time that is left when a run is ended because it takes too long, but no more than a tenth of all. [s]"""
KEPT = ("label.inp", "label.out", "label.err")
"""What stays of a run; orbitals and densities go."""


def label(options: CP2K, structure: Atoms, task: LabelTask) -> Label:
    """Energy, forces and stress; each run has a folder of its own in the task's, with its input and output.

    Raises:
        ReferenceFailed: "unconverged", "bad input", "wall time", "memory" or "engine".
    """
    try:
        _checks.check_structure(structure)
    except StructureError as error:
        raise ReferenceFailed(str(error), "bad input") from error
    tried: list[str] = []
    deadline = _deadline(task.resources)
    for number, (rung, start) in enumerate(_attempts(options, structure)):
        folder = task.folder / f"run-{number}"
        folder.mkdir(parents=True)
        root = _run_input.of(options, structure, rung)
        _run_input.write(root, folder, start)
        try:
            code = _program.run(options, folder, task.resources, deadline)
            found = _found(folder, code, structure, _run_input.threshold(root) if len(structure) > 1 else math.inf)
            if found is not None:
                _remember(options, structure, rung, folder)
                return _centred(found, structure)
            came = _output.progress((folder / "label.out").read_text(errors="replace"))
        except ReferenceFailed as failure:
            if not tried or not _failures.is_refusal(folder):  # a later rung may be none for this method
                raise
            came = str(failure)
        finally:
            _clean(folder)
        tried.append(f"{rung.name} ({came})")
    raise ReferenceFailed(f"the SCF did not converge; tried {'; '.join(tried)}; see {task.folder}", "unconverged")


def _attempts(options: CP2K, structure: Atoms) -> Iterator[tuple[_scf.Rung, bytes | None]]:
    """The rungs, and before them the first one from the orbitals of a neighbour, where there are such."""
    rungs = _scf.ladder(options, structure)
    start = _start.find(options, structure) if options.start_from_last else None
    if start is not None and start.rung == rungs[0].name:
        yield rungs[0], start.orbitals
    yield from ((rung, None) for rung in rungs)


def _found(folder: Path, code: int, structure: Atoms, threshold: float) -> Label | None:
    """The label of a run, None if its self-consistent field did not converge."""
    failure = _failures.complaint(folder, code)
    if failure is not None and failure.reason != "unconverged":
        raise failure
    if failure is not None or not _output.converged((folder / "label.out").read_text(errors="replace"), threshold):
        return None
    return _output.read(folder, len(structure), bool(structure.pbc.all()))


def _centred(found: Label, structure: Atoms) -> Label:
    """The label of a molecule in the middle of its box: moved there, it feels no net force of the grid."""
    if structure.pbc.any():
        return found
    return Label(found.energy, found.forces - found.forces.mean(axis=0))


def _remember(options: CP2K, structure: Atoms, rung: _scf.Rung, folder: Path) -> None:
    orbitals = folder / "label-RESTART.wfn"
    if orbitals.is_file():
        _start.keep(options, structure, rung.name, orbitals.read_bytes())


def _deadline(resources: Resources) -> float | None:
    if resources.wall_time is None:
        return None
    return time.monotonic() + resources.wall_time - min(MARGIN, 0.1 * resources.wall_time)


def _clean(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name not in KEPT:
            file.unlink()
