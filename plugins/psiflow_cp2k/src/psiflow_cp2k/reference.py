"""The reference `cp2k`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ase import Atoms

from psiflow_core.components import LabelTask
from psiflow_core.structures import Label
from psiflow_cp2k.options import CP2KOptions


class CP2K(CP2KOptions):
    """Density-functional theory for crystals, liquids and molecules, in Gaussians and plane waves.

    The level is given by name (`functional`, `basis`, `cutoff`, …) or as a section of CP2K's own input
    (`force_eval`). psiflow writes everything that belongs to the structure, and removes it from a given section: cell,
    coordinates, charge and multiplicity (``info["charge"]``, ``info["spin"]``), spin polarization (if the
    multiplicity is not 1 or atoms have initial magnetic moments), and the boundary conditions of electrostatics. It
    also replaces the print sections.

    Crystals and liquids (periodic in all directions) have a stress. Molecules and isolated atoms are placed in the
    middle of a cubic box without periodicity. Slabs and wires: use a periodic cell with vacuum.

    Forces are the gradient of the energy for a fixed grid (within 0.05 meV/Å, H2O); the grid itself is the largest
    error: see `cutoff`. The grid exerts a net force on a molecule. It is subtracted from all atoms equally, which
    leaves the gradient of the energy of the molecule in the middle of its box.

    Metals: with `smearing` the energy is the free energy E − TS that CP2K minimizes; forces and stress are its
    gradient.
    """

    name: ClassVar[str] = "cp2k"
    program: ClassVar[str] = "cp2k"

    def check(self, structures: Sequence[Atoms]) -> None:
        from psiflow_cp2k import _checks

        for structure in structures:
            _checks.check_structure(structure)
        _checks.check_level(self, structures)

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        from psiflow_cp2k import _engine

        return _engine.label(self, structure, task)
