"""Fixed atoms: `ase.constraints.FixAtoms`, the only constraint that psiflow keeps.

ASE applies constraints wherever it can: ``atoms.get_forces()`` gives zeros on fixed atoms. A label has the computed
forces, so psiflow reads them with ``apply_constraint=False``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


def fixed_atoms(atoms: Atoms) -> NDArray[np.bool_]:
    """Which atoms are fixed, shape (atoms,)."""
    fixed = np.zeros(len(atoms), bool)
    for constraint in atoms.constraints:
        if is_fixing(constraint):
            fixed[constraint.index] = True
    return fixed


def is_fixing(constraint: object) -> bool:
    """Whether a constraint of ASE is `FixAtoms`."""
    from ase.constraints import FixAtoms  # slow to import; if there is a constraint, ASE has imported it already

    return isinstance(constraint, FixAtoms)


def fix(atoms: Atoms, indices: Sequence[int] | NDArray[np.int64]) -> None:
    """Fix these atoms of a structure, and no others."""
    from ase.constraints import FixAtoms

    atoms.set_constraint(FixAtoms(indices=indices) if len(indices) else None)


def unconstrained(atoms: Atoms) -> Atoms:
    """A copy without constraints: some codes print forces of zero for fixed atoms."""
    free = atoms.copy()
    free.set_constraint()
    return free


def constraint_problem(atoms: Atoms) -> str | None:
    """Why the constraints of a structure cannot be kept; None if they can."""
    constraints = [constraint for constraint in atoms.constraints if _holds(constraint)]
    others = sorted({type(constraint).__name__ for constraint in constraints if not is_fixing(constraint)})
    if others:
        return (
            f"it has unsupported constraints ({', '.join(others)}): only FixAtoms is supported, which fixes whole "
            "atoms; remove them: atoms.set_constraint()"
        )
    for index in (int(index) for constraint in constraints for index in constraint.index):
        if not -len(atoms) <= index < len(atoms):
            return f"its FixAtoms names atom {index}, but its last atom is {len(atoms) - 1}"
    return None


def _holds(constraint: Any) -> bool:
    """Whether a constraint holds any atom: some of ASE's readers give empty constraints."""
    return len(constraint.get_indices()) > 0 if hasattr(constraint, "get_indices") else True
