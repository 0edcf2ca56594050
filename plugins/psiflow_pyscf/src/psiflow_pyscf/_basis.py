"""Gaussian basis sets: their names, their purpose, and their core potentials.

PySCF does not distinguish the names of orbital, fitting, valence and potential sets, and computes with any of them.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from scipy.linalg import block_diag

from psiflow_core.structures import Array
from psiflow_pyscf import _pyscf  # noqa: F401  # first: it hides PySCF's configuration file

FITTING = re.compile(r"(fit|ri)$|^sap")
"""Density-fitting, resolution-of-the-identity and superposition-of-atomic-potentials sets, by file or name."""
POTENTIALS = re.compile(r"^(bfd|ccecp(he|reg|28|36)?)")
"""Families whose core potentials are a separate set, named by the first part of each member's name."""
DEPTH = 0.45
"""Smallest binding energy of one electron to the bare nucleus, over Z²; the exact value is 0.5. It is above 0.46 in
every non-relativistic all-electron set of PySCF, and below 0.45 in every valence set. [Eh]"""


def functions(basis: str, symbol: str) -> list[Any]:
    """The basis functions of an element, as PySCF writes them; empty if there are none."""
    from pyscf.gto.basis import load
    from pyscf.lib.exceptions import BasisNotFoundError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hint at another package with more basis sets
        try:
            return list(load(basis, symbol))
        except (BasisNotFoundError, KeyError, IndexError, AssertionError):  # depends on the kind of wrong name
            return []


def core_potential(basis: str, symbol: str) -> list[Any]:
    """The effective core potential that belongs to a basis set, as PySCF writes it; empty if there is none."""
    candidates = (_potential(str(file), symbol) for file in _files_of_potentials(basis))
    return next(filter(None, candidates), []) or _from_the_exchange(basis, symbol)


def exists(basis: str) -> bool:
    """Whether the set has functions for any element; some sets are for heavy elements only."""
    common = ["H", "C", "I"]
    return any(functions(basis, symbol) for symbol in [*common, *chemical_symbols[1:]])


def known() -> list[str]:
    """The names of PySCF's basis sets, without hyphens."""
    from pyscf.gto.basis import ALIAS

    return [str(name) for name in ALIAS]


def has_a_file(basis: str) -> bool:
    """Whether PySCF has a file of this name, with functions or not."""
    return bool(_files(basis))


def is_for_fitting(basis: str) -> bool:
    """Whether the set expands densities or potentials, not orbitals."""
    stems = [Path(file).stem.lower() for file in _files(basis)]
    return any(FITTING.search(name) for name in (_plain(basis), *stems))


def is_for_plane_waves(basis: str) -> bool:
    """Whether the set belongs to the pseudopotentials of Goedecker, Teter and Hutter, as in CP2K."""
    return "gth" in _plain(basis)


def lacks_a_core(basis: str, symbol: str) -> bool:
    """Whether the functions cannot describe the innermost electrons, and no core potential replaces these.

    That holds for valence sets, and for sets of heavy elements that are contracted for a relativistic Hamiltonian.
    """
    charge = atomic_numbers[symbol]
    return not core_potential(basis, symbol) and _depth(functions(basis, symbol), charge) < DEPTH * charge**2


def about(basis: str) -> str:
    """The beginning of an error about a basis set."""
    return f"reference 'pyscf': basis '{basis}'"


def _depth(shells: list[Any], charge: int) -> float:
    """Binding energy of one electron to the bare nucleus in the s functions of a basis set. [Eh]"""
    contracted = [rows for rows in map(_rows, shells) if len(rows)]
    exponents = np.concatenate([rows[:, 0] for rows in contracted])
    weights = block_diag(*(rows[:, 1:] for rows in contracted))
    total, mean = exponents[:, None] + exponents, np.sqrt(np.outer(exponents, exponents))
    overlap = (2 * mean / total) ** 1.5
    energy = overlap * (3 * mean**2 / total - 2 * charge * np.sqrt(total / np.pi))
    overlap, energy = weights.T @ overlap @ weights, weights.T @ energy @ weights
    norms, turned = np.linalg.eigh(overlap)
    independent = turned[:, norms > 1e-7] / np.sqrt(norms[norms > 1e-7])
    return -float(np.linalg.eigvalsh(independent.T @ energy @ independent)[0])


def _rows(shell: list[Any]) -> Array:
    """Exponent and contraction coefficients of an s shell's primitives; none for other shells."""
    return np.array([row for row in shell[1:] if isinstance(row, list | tuple)] if shell[0] == 0 else [], float)


def _plain(basis: str) -> str:
    """The name as PySCF compares it, without a truncation such as `@3s2p`."""
    return re.sub(r"[-_ ]", "", basis.lower()).partition("@")[0]


def _files(basis: str) -> list[str]:
    """PySCF's files with this set; none if PySCF makes it by a rule or asks the Basis Set Exchange."""
    from pyscf.gto.basis import ALIAS

    files = ALIAS.get(_plain(basis), ())
    return [files] if isinstance(files, str) else list(files)


def _files_of_potentials(basis: str) -> list[Path]:
    import pyscf.gto.basis

    family = POTENTIALS.match(_plain(basis))
    files = [*_files(basis), *(_files(family.group()) if family else [])]
    folder = Path(pyscf.gto.basis.__file__).parent
    return [folder / file for file in files if file.endswith(".dat")]  # the others are Python, without potentials


def _from_the_exchange(basis: str, symbol: str) -> list[Any]:
    from pyscf.gto.basis import bse

    if _files(basis) or bse.basis_set_exchange is None:
        return []
    return _potential(basis, symbol)


def _potential(source: str, symbol: str) -> list[Any]:
    from pyscf.gto.basis import load_ecp
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        return list(load_ecp(source, symbol))
    except BasisNotFoundError:
        return []
