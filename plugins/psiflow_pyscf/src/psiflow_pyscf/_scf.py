"""The fall-back ladder: methods for the self-consistent field, tried in turn; a failure names them all.

The ladder starts from the structure alone: a label never depends on earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from psiflow_core.errors import ReferenceFailed
from psiflow_pyscf.options import PySCFOptions

Field = Any
"""A mean-field object of PySCF: RHF, UHF, RKS or UKS, with or without density fitting."""

DESCENTS = 3
"""Attempts to leave a saddle point before the search for a minimum is given up."""


@dataclass
class Progress:
    """The progress of a rung, from PySCF's report of each iteration."""

    rung: str
    cycles: int = 0
    change: float = float("nan")
    """Change of the energy in the last iteration. [Eh]"""
    gradient: float = float("nan")
    """Norm of the orbital gradient. [Eh]"""

    def __call__(self, iteration: dict[str, Any]) -> None:
        self.cycles += 1
        self.change = float(iteration["e_tot"] - iteration["last_hf_e"])
        self.gradient = float(iteration["norm_gorb"])

    def __str__(self) -> str:
        return f"{self.rung} ({self.cycles} cycles, last ΔE {self.change:.1e} Eh, gradient {self.gradient:.1e})"


def converge(options: PySCFOptions, new_field: Callable[[], Field]) -> Field:
    """The first converged field of the ladder.

    Raises:
        ReferenceFailed: "unconverged"; the message names every rung and its progress.
    """
    tried: list[str] = []
    lowest: Field = None
    for name, climb in RUNGS.items():
        field, progress = new_field(), Progress(name)
        field.callback = progress
        try:
            field = climb(field, lowest)
            if field.converged and (options.check_stability or field.mol.spin > 0 or climb is second_order):
                field = descend(field)
        except np.linalg.LinAlgError as error:  # a Fock matrix that is no longer finite
            tried.append(f"{progress}: {error}")
            continue
        if field.converged and np.isfinite(field.e_tot):
            return field
        tried.append(str(progress))
        if np.isfinite(field.e_tot) and (lowest is None or field.e_tot < lowest.e_tot):
            lowest = field
    raise ReferenceFailed(f"the SCF did not converge; tried {'; '.join(tried)}", "unconverged")


def plain(field: Field, lowest: Field) -> Field:
    """DIIS from PySCF's minimal-basis guess."""
    field.kernel()
    return field


def atomic_densities(field: Field, lowest: Field) -> Field:
    """DIIS with a longer memory, from the superposition of spherical atoms computed in the same basis."""
    field.init_guess = "atom"
    field.diis_space = 14
    field.kernel()
    return field


def damped(field: Field, lowest: Field) -> Field:
    """Small steps first: damping until DIIS begins, and a level shift of the virtual orbitals throughout."""
    field.damp, field.diis_start_cycle, field.level_shift = 0.5, 12, 0.3
    field.kernel()
    return field


def second_order(field: Field, lowest: Field) -> Field:
    """Co-iterative augmented Hessian (Sun, Chem. Phys. Lett. 683, 291 (2017)) from the lowest field so far."""
    solver = field.newton()
    if lowest is None:
        solver.kernel()
    else:
        solver.kernel(lowest.mo_coeff, lowest.mo_occ)
    return solver.undo_newton()


RUNGS: dict[str, Callable[[Field, Field], Field]] = {
    "DIIS": plain,
    "DIIS from atomic densities": atomic_densities,
    "damping and level shift": damped,
    "second order": second_order,
}
"""Each takes a new field, and the unconverged field of lowest energy from earlier rungs, or None."""


def descend(field: Field) -> Field:
    """The field itself if it is a minimum, else the field after leaving the saddle point, converged or not."""
    if not rotations(field):
        return field
    orbitals, stable = lowest_curvature(field)
    for _ in range(DESCENTS):
        if stable:
            return field
        solver = field.newton()
        solver.kernel(orbitals, field.mo_occ)
        field = solver.undo_newton()
        if not field.converged:
            return field
        orbitals, stable = lowest_curvature(field)
    field.converged = stable
    return field


def lowest_curvature(field: Field) -> tuple[Any, bool]:
    """The orbitals, rotated along the lowest mode of their Hessian if they are unstable, and whether they are stable.

    PySCF's `stability` method starts its search where the gradient is not zero. It fails for atoms, where the gradient
    vanishes by symmetry; the functions below it can start anywhere.
    """
    from pyscf.scf import stability

    search = stability.uhf_internal if field.istype("UHF") else stability.rhf_internal
    orbitals, stable = search(field, with_symmetry=False, return_status=True, nroots=1)
    return orbitals, bool(stable)


def rotations(field: Field) -> int:
    """Number of pairs of an occupied and a virtual orbital; 0 for the H atom in a minimal basis, for instance."""
    return sum(int(np.sum(occupied > 0) * np.sum(occupied == 0)) for occupied in np.atleast_2d(field.mo_occ))
