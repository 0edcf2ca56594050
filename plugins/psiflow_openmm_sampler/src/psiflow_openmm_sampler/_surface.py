"""The potential-energy surface of one walker."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator

from psiflow_core.errors import WalkerExploded
from psiflow_core.structures import Array


class Point(NamedTuple):
    """One configuration, with its energy and forces."""

    positions: Array
    """Shape (atoms, 3). [Å]"""
    cell: Array
    """Vectors are rows, shape (3, 3). [Å]"""
    energy: float
    """[eV]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""


class EnergySurface:
    """Energy and forces from an ASE calculator, computed once for each configuration.

    The last two points are kept: a check, a frame and a trial change of the cell need configurations that the
    integrator has just computed, or computes next.
    """

    def __init__(self, calculator: Calculator, structure: Atoms) -> None:
        self._calculator = calculator
        self._atoms = structure.copy()  # ASE keeps fixed atoms in place to the last bit, despite OpenMM's units
        self._known: deque[Point] = deque(maxlen=2)
        self.cell: Array = np.array(structure.cell)
        """The present cell; rows are vectors. [Å]"""

    def at(self, positions: Array, cell: Array | None = None) -> Point:
        """The point at these positions, in the present cell unless another is given.

        Raises:
            WalkerExploded: the positions are not finite.
            Exception: any error of the calculator.
        """
        cell = self.cell if cell is None else cell
        for point in self._known:
            if np.array_equal(point.positions, positions) and np.array_equal(point.cell, cell):
                return point
        self._known.append(self._ask(positions, cell))
        return self._known[-1]

    def structure(self, point: Point, momenta: Array | None = None) -> Atoms:
        """A point as a structure that carries its energy and forces. Momenta in ASE's units."""
        atoms = self.bare(point.positions, point.cell, momenta)
        atoms.calc = SinglePointCalculator(atoms, energy=point.energy, forces=point.forces)
        return atoms

    def bare(self, positions: Array, cell: Array, momenta: Array | None) -> Atoms:
        """A structure without energy and forces."""
        atoms = self._atoms.copy()
        atoms.set_cell(cell)
        atoms.set_positions(positions)
        if momenta is not None:
            atoms.set_momenta(momenta)
        return atoms

    def _ask(self, positions: Array, cell: Array) -> Point:
        if not np.isfinite(positions).all():
            raise WalkerExploded("the positions are no longer finite; use a smaller timestep or a better potential")
        self._atoms.set_cell(cell)
        self._atoms.set_positions(positions)
        self._calculator.calculate(self._atoms, ["energy", "forces"], all_changes)
        results = self._calculator.results
        return Point(positions.copy(), cell.copy(), float(results["energy"]), np.array(results["forces"], float))
