"""One label with CP2K: input, fall-back ladder, result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from psiflow_core.components import LabelTask
from psiflow_core.errors import ReferenceFailed, StructureError
from psiflow_core.processes.programs import Allowance
from psiflow_core.structures import Label
from psiflow_cp2k import _checks, _failures, _output, _program, _run_input, _scf, _start
from psiflow_cp2k.options import CP2KOptions

KEPT = ("label.inp", "label.out", "label.err")
"""The files of a run that are kept; orbitals and densities are deleted."""


def label(options: CP2KOptions, structure: Atoms, task: LabelTask) -> Label:
    """Energy, forces and stress. Each run has its own folder within the task's, with its input and output.

    Raises:
        ReferenceFailed: "unconverged", "bad input", "wall time", "memory", "hung" or "engine".
    """
    try:
        _checks.check_structure(structure)
    except StructureError as error:
        raise ReferenceFailed(str(error), "bad input") from error
    tried: list[str] = []
    allowance = Allowance(task.resources)
    for number, (rung, start) in enumerate(_attempts(options, structure)):
        folder = task.folder / f"run-{number}"
        folder.mkdir(parents=True)
        root = _run_input.of(options, structure, rung)
        _run_input.write(root, folder, start)
        try:
            code = _program.run(options, folder, task.resources.cores, allowance)
            threshold = _run_input.threshold(root) if len(structure) > 1 else math.inf
            result = _result(folder, code, structure, threshold)
            if result is not None:
                _remember(options, structure, rung, folder)
                return _centred(result, structure)
            outcome = _output.progress((folder / "label.out").read_text(errors="replace"))
        except ReferenceFailed as failure:
            if not tried or not _failures.is_refusal(folder):  # a later rung may not exist for this method
                raise
            outcome = str(failure)
        finally:
            _clean(folder)
        tried.append(f"{rung.name} ({outcome})")
    raise ReferenceFailed(f"the SCF did not converge; tried {'; '.join(tried)}; see {task.folder}", "unconverged")


def _attempts(options: CP2KOptions, structure: Atoms) -> Iterator[tuple[_scf.Rung, bytes | None]]:
    """All rungs; before them, the first rung from the orbitals of a similar structure, if there are any."""
    rungs = _scf.ladder(options, structure)
    start = _start.find(options, structure) if options.start_from_last else None
    if start is not None and start.rung == rungs[0].name:
        yield rungs[0], start.orbitals
    yield from ((rung, None) for rung in rungs)


def _result(folder: Path, code: int, structure: Atoms, threshold: float) -> Label | None:
    """The label of a run; None if its self-consistent field did not converge."""
    failure = _failures.complaint(folder, code)
    if failure is not None and failure.reason != "unconverged":
        raise failure
    if failure is not None or not _output.converged((folder / "label.out").read_text(errors="replace"), threshold):
        return None
    return _output.read(folder, len(structure), bool(structure.pbc.all()))


def _centred(result: Label, structure: Atoms) -> Label:
    """The label of a molecule without the net force of the grid, as in the middle of its box."""
    if structure.pbc.any():
        return result
    return Label(result.energy, result.forces - result.forces.mean(axis=0))


def _remember(options: CP2KOptions, structure: Atoms, rung: _scf.Rung, folder: Path) -> None:
    orbitals = folder / "label-RESTART.wfn"
    if orbitals.is_file():
        _start.keep(options, structure, rung.name, orbitals.read_bytes())


def _clean(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name not in KEPT:
            file.unlink()
