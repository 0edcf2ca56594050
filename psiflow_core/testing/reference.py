"""What holds for every reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from psiflow_core.components import LabelTask
from psiflow_core.errors import ReferenceFailed
from psiflow_core.structures import Label, digest, isolated_atom, species
from psiflow_core.testing.component import ComponentContract
from psiflow_core.testing.physics import (
    full_stress,
    random_direction,
    random_strain,
    slope_along,
    slope_under_strain,
)

REASONS = {"unconverged", "bad input", "wall time", "memory", "engine"}


class ReferenceContract(ComponentContract):
    """Labels are what physics says they are, or a typed failure."""

    step: ClassVar[float] = 0.005
    """Displacement of the finite differences. [Å]"""
    force_tolerance: ClassVar[float] = 1e-3
    """Of the reference's own numerical noise: grids, convergence. [eV/Å]"""
    energy_tolerance: ClassVar[float] = 1e-4
    """Likewise. [eV]"""
    stress_tolerance: ClassVar[float] = 1e-4
    """Likewise. [eV/Å³]"""

    @pytest.fixture
    def molecule(self) -> Atoms:
        """A small molecule off its equilibrium that the reference can label; override it."""
        water = molecule("H2O")
        water.rattle(0.05, seed=1)
        return water

    @pytest.fixture
    def crystal(self) -> Atoms:
        """A small crystal off its equilibrium; override it."""
        crystal = bulk("Cu", cubic=True)
        crystal.rattle(0.05, seed=1)
        return crystal

    @pytest.fixture
    def impossible(self) -> Atoms:
        """A structure that the reference must fail on: two atoms at one place; override it."""
        return Atoms("H2", np.zeros((2, 3)))

    @pytest.fixture
    def task(self, tmp_path: Path) -> LabelTask:
        return LabelTask(tmp_path)

    def label(self, atoms: Atoms, task: LabelTask) -> Label:
        """One label, in a scratch folder of its own."""
        folder = task.folder / str(len(list(task.folder.iterdir())))
        folder.mkdir()
        label: Label = self.build().label(atoms, LabelTask(folder, task.resources))
        return label

    def test_forces_are_the_gradient_of_the_energy(self, molecule: Atoms, task: LabelTask) -> None:
        direction = random_direction(molecule, 0)
        slope = slope_along(lambda atoms: self.label(atoms, task).energy, molecule, direction, self.step)
        forces = self.label(molecule, task).forces
        assert forces.shape == (len(molecule), 3)
        assert -np.vdot(forces, direction) == pytest.approx(slope, abs=self.force_tolerance)

    def test_stress_is_the_strain_derivative_of_the_energy(self, crystal: Atoms, task: LabelTask) -> None:
        strain = random_strain(0)
        slope = slope_under_strain(lambda atoms: self.label(atoms, task).energy, crystal, strain, self.step / 5)
        stress = self.label(crystal, task).stress
        assert stress is not None
        assert stress.shape == (6,)
        said = float(np.vdot(full_stress(stress), strain))
        assert said == pytest.approx(slope / crystal.get_volume(), abs=self.stress_tolerance)

    def test_a_molecule_has_no_stress(self, molecule: Atoms, task: LabelTask) -> None:
        assert self.label(molecule, task).stress is None

    def test_translation_changes_nothing(self, molecule: Atoms, task: LabelTask) -> None:
        moved = molecule.copy()
        moved.positions += [0.3, -0.2, 0.1]
        here, there = self.label(molecule, task), self.label(moved, task)
        assert there.energy == pytest.approx(here.energy, abs=self.energy_tolerance)
        assert there.forces == pytest.approx(here.forces, abs=self.force_tolerance)

    def test_the_order_of_atoms_changes_nothing(self, molecule: Atoms, task: LabelTask) -> None:
        order = np.arange(len(molecule))[::-1]
        here, there = self.label(molecule, task), self.label(molecule[order], task)
        assert there.energy == pytest.approx(here.energy, abs=self.energy_tolerance)
        assert there.forces == pytest.approx(here.forces[order], abs=self.force_tolerance)

    def test_a_label_survives_json(self, molecule: Atoms, task: LabelTask) -> None:
        label = self.label(molecule, task)
        again = Label.from_plain(json.loads(json.dumps(label.to_plain(), allow_nan=False)))
        assert again.energy == label.energy
        assert np.array_equal(again.forces, label.forces)

    def test_each_isolated_atom_has_an_energy(self, molecule: Atoms, task: LabelTask) -> None:
        for symbol in species([molecule]):
            label = self.label(isolated_atom(symbol), task)
            assert np.isfinite(label.energy)
            assert label.forces == pytest.approx(np.zeros((1, 3)), abs=self.force_tolerance)

    def test_a_structure_is_left_as_it_was(self, molecule: Atoms, task: LabelTask) -> None:
        given = molecule.copy()
        self.label(given, task)
        assert digest(given) == digest(molecule)
        assert given.calc is None

    def test_failure_has_a_type_and_a_reason(self, impossible: Atoms, task: LabelTask) -> None:
        with pytest.raises(ReferenceFailed) as failure:
            self.label(impossible, task)
        assert failure.value.reason in REASONS
        assert str(failure.value)
