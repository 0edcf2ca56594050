"""What is refused before anything is computed for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import chemical_symbols

from psiflow_core.electrons import CHARGES, MOMENTS, electronic_problem
from psiflow_core.errors import StructureError
from psiflow_core.structures import Array

CLOSEST = 0.3
"""Atoms nearer to each other than this are taken for a mistake in the input. [Å]"""

CLOSEST_IMAGE = 1.5
"""No crystal repeats after less than this: the shortest period of an element is beryllium's, 2.2 Å. [Å]"""

LAST_ELEMENT = len(chemical_symbols) - 1


def check(structures: Sequence[Atoms], where: str = "structure", labelled: bool = False) -> None:
    """Refuse structures that nothing should be computed for.

    Args:
        where: how the error begins; the structure's number follows.
        labelled: they have labels, so that no reference is asked for them: a radical need not tell its spin.

    Raises:
        StructureError: the first one that is empty, constrained, not finite, impossible in charge or spin, or
            has overlapping atoms, by its number in the sequence.
    """
    if not structures:
        raise StructureError(f"{where}: there is no structure in it")
    for number, atoms in enumerate(structures):
        problem = problem_of(atoms, labelled)
        if problem:
            raise StructureError(f"{where} {number} ({atoms.get_chemical_formula()}): {problem}")


def problem_of(atoms: Atoms, labelled: bool = False) -> str | None:
    """Why nothing should be computed for a structure, as `check` says it."""
    return _problem(atoms) or _problem_of_motion(atoms) or electronic_problem(atoms, labelled) or _overlap(atoms)


def closest_pair(atoms: Atoms, cutoff: float) -> tuple[float, int, int] | None:
    """The nearest two atoms, periodic images included, if nearer than ``cutoff`` [Å]: (distance, i, j)."""
    if not atoms.pbc.any():
        return _closest_of_molecule(atoms.positions, cutoff)
    from ase.neighborlist import primitive_neighbor_list

    cell, positions = _around(atoms)
    first, second, distance = primitive_neighbor_list("ijd", atoms.pbc, cell, positions, cutoff)
    if len(distance) == 0:
        return None
    nearest = int(np.argmin(distance))
    return float(distance[nearest]), int(first[nearest]), int(second[nearest])


def _closest_of_molecule(positions: Array, cutoff: float) -> tuple[float, int, int] | None:
    from scipy.spatial import cKDTree

    if len(positions) < 2:
        return None
    distances, neighbours = cKDTree(positions).query(positions, k=2)
    atom = int(np.argmin(distances[:, 1]))
    other = next(int(found) for found in neighbours[atom] if found != atom)
    distance = float(distances[atom, 1])
    return (distance, *sorted((atom, other))) if distance < cutoff else None  # type: ignore[return-value]


def _around(atoms: Atoms) -> tuple[Array, Array]:
    """Cell and positions for a list of neighbours, which fills the cell with bins.

    A cell vector along which nothing repeats means nothing, however long; here it is as long as the atoms reach.
    """
    cell = np.asarray(Cell(np.where(atoms.pbc[:, None], atoms.cell, 0.0)).complete()).copy()
    positions = atoms.positions.copy()
    for axis in np.flatnonzero(~atoms.pbc):
        heights = positions @ cell[axis]  # a unit vector, perpendicular to those that repeat
        positions -= heights.min() * cell[axis]
        cell[axis] *= max(float(np.ptp(heights)), 1.0)
    return cell, positions


def shortest_period(atoms: Atoms) -> float:
    """The shortest distance after which a structure repeats; infinite for a molecule. [Å]"""
    from ase.geometry import minkowski_reduce

    if not atoms.pbc.any():
        return np.inf
    reduced, _ = minkowski_reduce(atoms.cell.complete(), atoms.pbc)
    return float(np.linalg.norm(np.asarray(reduced)[atoms.pbc], axis=1).min())


def _problem(atoms: Atoms) -> str | None:
    if len(atoms) == 0:
        return "it has no atoms"
    if not np.isfinite(atoms.positions).all() or not np.isfinite(np.asarray(atoms.cell)).all():
        return "its positions or cell are not finite (NaN or infinity)"
    strange = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > LAST_ELEMENT))
    if len(strange):
        return f"atom {strange[0]} is of no element (atomic number {atoms.numbers[strange[0]]}); name its element"
    if atoms.pbc.any() and not _spans(atoms):
        return "it is periodic but its cell vectors are missing or dependent"
    if any(map(_holds, atoms.constraints)):
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        return f"it has constraints ({kinds}), which are not kept; remove them: atoms.set_constraint()"
    for name, what in ((MOMENTS, "magnetic moments"), (CHARGES, "charges")):
        if not np.isfinite(atoms.arrays.get(name, 0.0)).all():
            return f"its initial {what} are not finite (NaN or infinity)"
    return None


def _holds(constraint: Any) -> bool:
    """Whether a constraint is of any atom: some of ASE's readers give empty ones."""
    return len(constraint.get_indices()) > 0 if hasattr(constraint, "get_indices") else True


def _problem_of_motion(atoms: Atoms) -> str | None:
    if not np.isfinite(atoms.get_momenta()).all():
        return "its momenta are not finite (NaN or infinity); remove them: del atoms.arrays['momenta']"
    masses = atoms.get_masses()
    unsound = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if len(unsound):
        return (
            f"the mass of atom {unsound[0]} is {masses[unsound[0]]}, and a mass is above 0 amu; "
            "atoms.set_masses('defaults') sets those of the elements"
        )
    return None


def _overlap(atoms: Atoms) -> str | None:
    period = shortest_period(atoms)
    if period < CLOSEST_IMAGE:
        return (
            f"each atom is {period:.3f} Å from its own image (nearest allowed: {CLOSEST_IMAGE} Å), as with the cell of "
            "1 Å that PDB files have for none; set its cell, or atoms.pbc = False"
        )
    close = closest_pair(atoms, CLOSEST)
    if close:
        return f"atoms {close[1]} and {close[2]} are {close[0]:.3f} Å apart (nearest allowed: {CLOSEST} Å)"
    return None


def _spans(atoms: Atoms) -> bool:
    vectors = np.asarray(atoms.cell)[atoms.pbc]
    return bool(np.linalg.matrix_rank(vectors, tol=1e-6) == len(vectors))
