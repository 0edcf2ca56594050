"""What holds for every collective variable."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.environments.catalogue import one_of
from psiflow_core.sampling.variables import strained
from psiflow_core.testing.on_structures import OnStructures
from psiflow_core.testing.physics import random_direction, random_strain
from psiflow_core.testing.traces import portrait


class VariableContract(OnStructures):
    """A variable's derivatives are those of its value, and only the shape of a structure counts."""

    def value(self, atoms: Atoms) -> float:
        """The variable of a structure. [unit of the variable]"""
        return float(self.build().value(atoms))

    def slope(self, ahead: Atoms, behind: Atoms) -> float:
        """The central difference between two structures that are two steps apart."""
        return float(self.build().difference(self.value(ahead), self.value(behind))) / (2 * self.step)

    @pytest.mark.parametrize("where", ["molecule", "crystal"])
    def test_the_gradient_is_that_of_the_value(self, where: str, request: pytest.FixtureRequest) -> None:
        atoms: Atoms = request.getfixturevalue(where)
        self._takes(atoms)
        gradient = self.build().read(atoms).gradient
        assert gradient.shape == (len(atoms), 3)
        for seed in range(3):
            direction = random_direction(atoms, seed)
            ahead, behind = (_moved(atoms, by * direction) for by in (self.step, -self.step))
            wanted = self.slope(ahead, behind)
            assert float(np.vdot(gradient, direction)) == pytest.approx(wanted, abs=self._within(gradient))

    def test_the_strain_derivative_is_that_of_the_value(self, crystal: Atoms) -> None:
        self._takes(crystal)
        found = self.build().read(crystal).strain
        assert found.shape == (3, 3)
        assert found == pytest.approx(found.T)
        for seed in range(3):
            strain = random_strain(seed)
            ahead, behind = (strained(crystal, by * strain) for by in (self.step, -self.step))
            wanted = self.slope(ahead, behind)
            assert float(np.vdot(found, strain)) == pytest.approx(wanted, abs=self._within(found))

    @pytest.mark.parametrize("where", ["molecule", "crystal"])
    def test_translation_changes_nothing(self, where: str, request: pytest.FixtureRequest) -> None:
        atoms: Atoms = request.getfixturevalue(where)
        self._takes(atoms)
        self._same(atoms, _moved(atoms, np.array([0.3, -0.2, 0.1])))

    def test_whole_cells_change_nothing(self, crystal: Atoms) -> None:
        """A walker's atoms leave the cell."""
        self._takes(crystal)
        for atom in range(0, len(crystal), 5):
            moved = crystal.copy()
            moved.positions[atom] += np.asarray(crystal.cell)[atom % 3]
            self._same(crystal, moved)

    def test_a_whole_turn_is_no_difference(self) -> None:
        variable = self.build()
        if variable.repeats is None:
            pytest.skip("it does not turn round")
        assert variable.difference(0.3 + variable.repeats, 0.3) == pytest.approx(0.0, abs=1e-9)

    def test_it_is_plain_data_and_comes_back(self, molecule: Atoms, crystal: Atoms) -> None:
        again = one_of("variable", json.loads(json.dumps(self.build().to_plain(), allow_nan=False)))
        assert again == self.build()
        for atoms in filter(self._accepts, (molecule, crystal)):
            assert again.value(atoms) == self.value(atoms)  # type: ignore[attr-defined]

    def test_a_structure_is_left_as_it_was(self, molecule: Atoms, crystal: Atoms) -> None:
        for atoms in filter(self._accepts, (molecule, crystal)):
            before = portrait(atoms)
            self.build().read(atoms)
            assert portrait(atoms) == before

    def _same(self, atoms: Atoms, other: Atoms) -> None:
        variable = self.build()
        scale = max(1.0, abs(variable.value(atoms)))
        apart = float(variable.difference(variable.value(atoms), variable.value(other)))
        assert apart == pytest.approx(0.0, abs=1e-9 * scale)


def _moved(atoms: Atoms, by: np.ndarray) -> Atoms:
    moved = atoms.copy()
    moved.positions = atoms.positions + by
    return moved
