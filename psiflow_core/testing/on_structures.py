"""What biases and variables share in their tests: a molecule and a crystal, of which they accept one at least."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from psiflow_core.testing.component import ComponentContract


class OnStructures(ComponentContract):
    """A component that is a function of structures."""

    step: ClassVar[float] = 1e-5
    """Displacement of the finite differences. [Å]"""
    tolerance: ClassVar[float] = 1e-5
    """Of derivatives, relative to the largest component above 1."""

    @pytest.fixture
    def molecule(self) -> Atoms:
        """A molecule on which the component acts, off every symmetry; override it."""
        ethanol = molecule("CH3CH2OH")
        ethanol.rattle(0.05, seed=1)
        return ethanol

    @pytest.fixture
    def crystal(self) -> Atoms:
        """A periodic structure on which the component acts, off every symmetry; override it."""
        crystal = bulk("Cu", cubic=True) * (2, 2, 2)
        crystal.rattle(0.05, seed=1)
        return crystal

    def test_it_acts_on_the_molecule_or_on_the_crystal(self, molecule: Atoms, crystal: Atoms) -> None:
        """Otherwise nothing of its physics is tested: override the fixtures."""
        assert self._accepts(molecule) or self._accepts(crystal)

    def _accepts(self, atoms: Atoms) -> bool:
        try:
            self.build().check([atoms])
        except ValueError:
            return False
        return True

    def _takes(self, atoms: Atoms) -> None:
        """Skip a check on a structure that the component refuses."""
        if not self._accepts(atoms):
            pytest.skip("it refuses this structure: override the fixture with one on which it acts")

    def _within(self, derivatives: np.ndarray) -> float:
        return self.tolerance * max(1.0, float(np.abs(derivatives).max()))
