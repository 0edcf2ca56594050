"""The reference `pyscf`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ase import Atoms

from psiflow_core.components import LabelTask
from psiflow_core.structures import Label
from psiflow_pyscf.options import PySCFOptions


class PySCF(PySCFOptions):
    """Molecules in a Gaussian basis: Hartree-Fock, any density functional of libxc, MP2.

    Charge and multiplicity belong to each structure (``info["charge"]``, ``info["spin"]``). Singlets are
    spin-restricted, all others spin-unrestricted. Where a bond of a singlet breaks, the restricted energy is too high,
    as in any code.

    Forces are analytic and include the response of the integration grid and of the fitting basis: they are the
    gradient of the returned energy, within 0.05 meV/Å (H2O). Two errors remain. With screened hybrids (HSE), forces
    deviate from the gradient by up to 0.5 meV/Å. And the energy itself depends on the orientation of the molecule in
    the grid: `grid_level` gives the size of the effect.

    A self-consistent field is a stationary point, and not always the lowest one: see `check_stability`. Of degenerate
    states (in the OH radical, in most atoms) it is an arbitrary one, and forces are less accurate there. Of several
    minima, the ladder takes the first it finds: for a transition metal this need not be the ground state.
    """

    name: ClassVar[str] = "pyscf"
    engine: ClassVar[str] = "psiflow_pyscf._pyscf"

    def check(self, structures: Sequence[Atoms]) -> None:
        from psiflow_pyscf import _checks

        _checks.check(self, structures)

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        from psiflow_pyscf import _engine

        return _engine.label(self, structure, task)
