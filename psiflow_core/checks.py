"""Refusal of unsuitable structures, before anything is computed for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import chemical_symbols

from psiflow_core.constraints import constraint_problem, fixed_atoms
from psiflow_core.electrons import CHARGES, MOMENTS, electronic_problem
from psiflow_core.errors import StructureError
from psiflow_core.structures import Array, charge_of, spin_of

CLOSEST = 0.3
"""Atoms closer to each other than this are an input error. [Å]"""

CLOSEST_IMAGE = 1.5
"""The shortest allowed period. The shortest period of an elemental crystal is beryllium's, 2.2 Å. [Å]"""

LAST_ELEMENT = len(chemical_symbols) - 1


def check(structures: Sequence[Atoms], where: str = "structure", labelled: bool = False, moving: bool = False) -> None:
    """Refuse unsuitable structures.

    Args:
        structures: the structures.
        where: the beginning of the error; the structure's number follows.
        labelled: they have labels, so no reference computes them: a radical may lack its spin.
        moving: walkers start from them, so at least one atom must be free to move.

    Raises:
        StructureError: there are no structures, or one is empty, is not finite, has an impossible charge or spin,
            overlapping atoms, or constraints other than FixAtoms. The error is about the first such structure.
    """
    if not structures:
        raise StructureError(f"{where}: there is no structure in it")
    for number, atoms in enumerate(structures):
        problem = problem_of(atoms, labelled) or (_stillness(atoms) if moving else None)
        if problem:
            raise StructureError(f"{where} {number} ({atoms.get_chemical_formula()}): {problem}")


def refuse_other_charges(structures: Sequence[Atoms], potential: str) -> None:
    """Refuse structures that differ in charge or spin only, which a potential of atoms alone cannot distinguish.

    Args:
        potential: its name, for the error.

    Raises:
        StructureError: one composition comes with two charges, or with two spins.
    """
    known: dict[str, tuple[int, int]] = {}
    for atoms in structures:
        formula, state = atoms.get_chemical_formula(), (charge_of(atoms), spin_of(atoms))
        other = known.setdefault(formula, state)
        if other != state:
            raise StructureError(
                f"{formula} comes with charge {other[0]} and spin {other[1]}, and with charge {state[0]} and spin "
                f"{state[1]}; potential '{potential}' cannot distinguish them: learn each in a separate campaign"
            )


def check_cell(structures: Sequence[Atoms], changing: str, keeping: str) -> None:
    """Refuse structures whose cell cannot change.

    Args:
        changing: the option that changes the cell, for the message: ``"ensemble='npt'"``.
        keeping: the option that keeps it: ``"ensemble='nvt'"``.

    Raises:
        StructureError: a structure is not periodic in three directions, or has fixed atoms. A change of the cell
            moves all atoms; atoms that stay in place would be strained relative to the others.
    """
    for number, atoms in enumerate(structures):
        where = f"structure {number} ({atoms.get_chemical_formula()})"
        if not atoms.pbc.all():
            raise StructureError(
                f"{where} is not periodic in all directions, but {changing} needs a periodic structure; "
                f"use {keeping}, or give it a cell"
            )
        if fixed_atoms(atoms).any():
            raise StructureError(
                f"{where} has fixed atoms, but {changing} changes the cell, which would move them; "
                f"use {keeping}, or free them: atoms.set_constraint()"
            )


def problem_of(atoms: Atoms, labelled: bool = False) -> str | None:
    """Why a structure is unsuitable, in the words of `check`; None if it is suitable."""
    return _problem(atoms) or _problem_of_motion(atoms) or electronic_problem(atoms, labelled) or _overlap(atoms)


def closest_pair(atoms: Atoms, cutoff: float) -> tuple[float, int, int] | None:
    """The closest pair of atoms, with periodic images, if closer than ``cutoff`` [Å]: (distance [Å], i, j)."""
    if not atoms.pbc.any():
        return _closest_of_molecule(atoms.positions, cutoff)
    first, second, distance = neighbour_distances(atoms, cutoff)
    if len(distance) == 0:
        return None
    nearest = int(np.argmin(distance))
    return float(distance[nearest]), int(first[nearest]), int(second[nearest])


def neighbour_distances(atoms: Atoms, cutoff: float) -> tuple[Array, Array, Array]:
    """All pairs of atoms closer than ``cutoff`` [Å], with periodic images: first atoms, second atoms, distances [Å]."""
    from ase.neighborlist import primitive_neighbor_list

    cell, positions = _around(atoms)
    first, second, distances = primitive_neighbor_list("ijd", atoms.pbc, cell, positions, cutoff)
    return first, second, distances


def _closest_of_molecule(positions: Array, cutoff: float) -> tuple[float, int, int] | None:
    from scipy.spatial import cKDTree

    if len(positions) < 2:
        return None
    distances, neighbours = cKDTree(positions).query(positions, k=2)
    atom = int(np.argmin(distances[:, 1]))
    other = next(int(neighbour) for neighbour in neighbours[atom] if neighbour != atom)
    distance = float(distances[atom, 1])
    return (distance, *sorted((atom, other))) if distance < cutoff else None  # type: ignore[return-value]


def _around(atoms: Atoms) -> tuple[Array, Array]:
    """Cell and positions for a neighbour list, which divides the cell into bins.

    A cell vector without periodicity has no meaning, but may be very long; here it is as long as the atoms extend.
    """
    cell = np.asarray(Cell(np.where(atoms.pbc[:, None], atoms.cell, 0.0)).complete()).copy()
    positions = atoms.positions.copy()
    for axis in np.flatnonzero(~atoms.pbc):
        heights = positions @ cell[axis]  # a unit vector, perpendicular to the periodic ones
        positions -= heights.min() * cell[axis]
        cell[axis] *= max(float(np.ptp(heights)), 1.0)
    return cell, positions


def shortest_period(atoms: Atoms) -> float:
    """The shortest period of a structure; infinite for a molecule. [Å]"""
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
        return f"atom {strange[0]} has no element (atomic number {atoms.numbers[strange[0]]}); give its element"
    if atoms.pbc.any() and not _spans(atoms):
        return "it is periodic but its cell vectors are missing or dependent"
    constrained = constraint_problem(atoms)
    if constrained:
        return constrained
    for name, what in ((MOMENTS, "magnetic moments"), (CHARGES, "charges")):
        if not np.isfinite(atoms.arrays.get(name, 0.0)).all():
            return f"its initial {what} are not finite (NaN or infinity)"
    return None


def _stillness(atoms: Atoms) -> str | None:
    return "all its atoms are fixed, so no walker can move; free at least one" if fixed_atoms(atoms).all() else None


def _problem_of_motion(atoms: Atoms) -> str | None:
    if not np.isfinite(atoms.get_momenta()).all():
        return "its momenta are not finite (NaN or infinity); remove them: del atoms.arrays['momenta']"
    masses = atoms.get_masses()
    unsound = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if len(unsound):
        return (
            f"the mass of atom {unsound[0]} is {masses[unsound[0]]}, but a mass must be above 0 amu; "
            "atoms.set_masses('defaults') sets those of the elements"
        )
    return None


def _overlap(atoms: Atoms) -> str | None:
    period = shortest_period(atoms)
    if period < CLOSEST_IMAGE:
        return (
            f"each atom is {period:.3f} Å from its own image (nearest allowed: {CLOSEST_IMAGE} Å); PDB files without "
            "a cell have one of 1 Å; set its cell, or atoms.pbc = False"
        )
    close = closest_pair(atoms, CLOSEST)
    if close:
        return f"atoms {close[1]} and {close[2]} are {close[0]:.3f} Å apart (nearest allowed: {CLOSEST} Å)"
    return None


def _spans(atoms: Atoms) -> bool:
    vectors = np.asarray(atoms.cell)[atoms.pbc]
    return bool(np.linalg.matrix_rank(vectors, tol=1e-6) == len(vectors))
