"""The orbitals of the last label of this worker, for a neighbouring structure to start from.

Kept in memory: nothing is left behind by a worker that is killed. Only closed shells without smearing are kept,
whose self-consistent field has one solution: there a start changes how long it takes, and the label by less than the
threshold does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from psiflow_core.structures import Array, charge_of
from psiflow_cp2k import _level
from psiflow_cp2k._scf import is_metallic
from psiflow_cp2k._structure import UNRESTRICTED, is_open_shell

if TYPE_CHECKING:
    from psiflow_cp2k.reference import CP2K

NEAR = 0.5
"""The farthest that an atom may have moved. [Å]"""
STRAIN = 0.05
"""The most that a cell vector may have changed, over its length."""
ROOM = 256 * 2**20
"""The largest file that is kept. [bytes]"""


class Start(NamedTuple):
    options: CP2K
    atoms: Atoms
    rung: str
    orbitals: bytes


_last: list[Start] = []
_lock = threading.Lock()


def find(options: CP2K, atoms: Atoms) -> Start | None:
    """What a structure may start from."""
    with _lock:
        for last in _last:
            if last.options == options and _serves(last.atoms, atoms):
                return last
    return None


def keep(options: CP2K, atoms: Atoms, rung: str, orbitals: bytes) -> None:
    """Remember the orbitals of a structure in place of all others."""
    if options.start_from_last and _has_one_solution(options, atoms) and len(orbitals) < ROOM:
        with _lock:
            _last[:] = [Start(options, atoms.copy(), rung, orbitals)]


def forget() -> None:
    """Let the next label start from nothing."""
    with _lock:
        _last.clear()


def _has_one_solution(options: CP2K, atoms: Atoms) -> bool:
    """Whether the field is unlikely to end elsewhere when it starts elsewhere: one spin, whole occupations."""
    given = _level.sections(options).at("FORCE_EVAL/DFT").get(*UNRESTRICTED)
    return given is None and not is_open_shell(atoms) and not (atoms.pbc.any() and is_metallic(options))


def _serves(last: Atoms, atoms: Atoms) -> bool:
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
    """How far each atom is from where it was, that the whole structure has moved apart. [Å]"""
    if atoms.pbc.any():
        return np.asarray(find_mic(atoms.positions - last.positions, atoms.cell, atoms.pbc)[1])
    shift = atoms.positions.mean(axis=0) - last.positions.mean(axis=0)
    return np.asarray(np.linalg.norm(atoms.positions - shift - last.positions, axis=1))
