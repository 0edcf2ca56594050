"""The orbitals of this worker's last label, as the start of a similar structure.

They are kept in memory: a killed worker leaves nothing behind. Only closed shells without smearing are kept. Their
self-consistent field has one solution: the start changes the time, and the label by less than the threshold does.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from psiflow_core.structures import Array, charge_of
from psiflow_cp2k import _level
from psiflow_cp2k._scf import is_metallic
from psiflow_cp2k._structure import UNRESTRICTED, is_open_shell
from psiflow_cp2k.options import CP2KOptions

NEAR = 0.5
"""Largest displacement of an atom. [Å]"""
STRAIN = 0.05
"""Largest change of a cell vector, relative to its length."""
ROOM = 256 * 2**20
"""Largest file that is kept. [bytes]"""


class Start(NamedTuple):
    options: CP2KOptions
    atoms: Atoms
    rung: str
    orbitals: bytes


_last: list[Start] = []
_lock = threading.Lock()


def find(options: CP2KOptions, atoms: Atoms) -> Start | None:
    """The orbitals that a structure may start from; None if there are none."""
    with _lock:
        for last in _last:
            if last.options == options and _is_similar(last.atoms, atoms):
                return last
    return None


def keep(options: CP2KOptions, atoms: Atoms, rung: str, orbitals: bytes) -> None:
    """Keep the orbitals of a structure in place of earlier ones, if others may start from them."""
    if options.start_from_last and _has_one_solution(options, atoms) and len(orbitals) < ROOM:
        with _lock:
            _last[:] = [Start(options, atoms.copy(), rung, orbitals)]


def forget() -> None:
    """Let the next label start without orbitals."""
    with _lock:
        _last.clear()


def _has_one_solution(options: CP2KOptions, atoms: Atoms) -> bool:
    """Whether the solution is unlikely to depend on the start: a closed shell with integer occupations."""
    given = _level.sections(options).at("FORCE_EVAL/DFT").get(*UNRESTRICTED)
    return given is None and not is_open_shell(atoms) and not (atoms.pbc.any() and is_metallic(options))


def _is_similar(last: Atoms, atoms: Atoms) -> bool:
    same = len(last) == len(atoms) and (last.numbers == atoms.numbers).all() and (last.pbc == atoms.pbc).all()
    return bool(
        same
        and charge_of(last) == charge_of(atoms)
        and not is_open_shell(atoms)
        and _strain(last, atoms) < STRAIN
        and _moved(last, atoms).max() < NEAR
    )


def _strain(last: Atoms, atoms: Atoms) -> float:
    if not atoms.pbc.any():
        return 0.0
    before, after = np.asarray(last.cell), np.asarray(atoms.cell)
    return float((np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)).max())


def _moved(last: Atoms, atoms: Atoms) -> Array:
    """Displacement of each atom, shape (atoms,); a molecule's translation does not count. [Å]"""
    if atoms.pbc.any():
        return np.asarray(find_mic(atoms.positions - last.positions, atoms.cell, atoms.pbc)[1])
    shift = atoms.positions.mean(axis=0) - last.positions.mean(axis=0)
    return np.asarray(np.linalg.norm(atoms.positions - shift - last.positions, axis=1))
