"""What holds for every bias."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.components import Bias, Memory
from psiflow_core.environments.catalogue import one_of
from psiflow_core.testing.on_structures import OnStructures
from psiflow_core.testing.physics import full_stress, random_direction, random_strain, slope_along, slope_under_strain
from psiflow_core.testing.traces import portrait


class BiasContract(OnStructures):
    """Forces and stress are those of the energy, and all that a bias knows of a walker is in its memory."""

    temperature: ClassVar[float | None] = 300.0
    """The sampler's; None for one without a thermostat. [K]"""

    @pytest.fixture(params=["molecule", "crystal"])
    def atoms(self, request: pytest.FixtureRequest) -> Atoms:
        """Each of the two that the bias accepts."""
        found: Atoms = request.getfixturevalue(request.param)
        self._takes(found)
        return found

    def walked(self, atoms: Atoms, looks: int = 4) -> list[Memory]:
        """What the bias remembers of a walker before the first step, and after each of its looks."""
        bias, walker = self._bias(), atoms.copy()
        memories = [bias.begin(Memory(temperature=self.temperature), walker)]
        for number in range(1, looks + 1):
            walker.positions += 0.05 * random_direction(walker, number)
            memories.append(bias.look(memories[-1], walker, 100 * number, self.temperature))
        return memories

    def test_forces_are_minus_the_gradient_of_the_energy(self, atoms: Atoms) -> None:
        bias = self._bias()
        for memory in self.walked(atoms):
            forces = bias.evaluate(atoms, memory).forces
            assert forces.shape == (len(atoms), 3)
            direction = random_direction(atoms, 0)
            slope = slope_along(partial(_energy, bias, memory), atoms, direction, self.step)
            assert -float(np.vdot(forces, direction)) == pytest.approx(slope, abs=self._within(forces))

    def test_stress_is_the_strain_derivative_of_the_energy(self, crystal: Atoms) -> None:
        self._takes(crystal)
        bias, strain = self._bias(), random_strain(0)
        for memory in self.walked(crystal):
            stress = bias.evaluate(crystal, memory).stress
            assert stress is not None, "samplers at constant pressure need it"
            slope = slope_under_strain(partial(_energy, bias, memory), crystal, strain, self.step)
            said = float(np.vdot(full_stress(stress), strain)) * crystal.get_volume()
            assert said == pytest.approx(slope, abs=self._within(stress * crystal.get_volume()))

    def test_it_is_plain_data_and_comes_back(self, atoms: Atoms) -> None:
        again = one_of("bias", json.loads(json.dumps(self._bias().to_plain(), allow_nan=False)))
        assert again == self._bias()
        assert isinstance(again, Bias)
        for memory in self.walked(atoms):
            assert again.evaluate(atoms, memory).energy == self._bias().evaluate(atoms, memory).energy

    def test_what_it_remembers_survives_json(self, atoms: Atoms) -> None:
        """A walker goes on in another process, and an object that has seen nothing."""
        for memory in self.walked(atoms):
            again = Memory.from_plain(json.loads(json.dumps(memory.to_plain(), allow_nan=False)))
            assert self._bias().evaluate(atoms, again).energy == self._bias().evaluate(atoms, memory).energy

    def test_its_memory_is_all_that_it_knows(self, atoms: Atoms) -> None:
        """Walkers share the object, and its answers may not depend on who asked before."""
        bias, memories = self._bias(), self.walked(atoms)
        first = [bias.evaluate(atoms, memory).energy for memory in memories]
        bias.look(memories[-1], atoms, 1000, self.temperature)
        backwards = [bias.evaluate(atoms, memory).energy for memory in reversed(memories)]
        assert backwards[::-1] == first

    def test_what_a_look_changes_can_be_taken_back(self, atoms: Atoms) -> None:
        """It does not act on the structure that was looked at: its forces are known already."""
        memories = self.walked(atoms)
        for before, after in pairwise(memories):
            energies = [self._bias().evaluate(atoms, memory).energy for memory in (before, after.before())]
            assert energies[1] == pytest.approx(energies[0], abs=1e-9)

    def test_a_structure_is_left_as_it_was(self, atoms: Atoms) -> None:
        before = portrait(atoms)
        for memory in self.walked(atoms):
            self._bias().evaluate(atoms, memory)
        self._bias().look(Memory(), atoms, 100, self.temperature)
        assert portrait(atoms) == before

    def _bias(self) -> Bias:
        bias: Bias = self.build()
        return bias


def _energy(bias: Bias, memory: Memory, atoms: Atoms) -> float:
    return bias.evaluate(atoms, memory).energy
