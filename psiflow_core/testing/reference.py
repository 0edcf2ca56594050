"""What holds for every reference."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from psiflow_core.components import LabelTask
from psiflow_core.errors import PsiflowError, ReferenceFailed, StructureError
from psiflow_core.structures import Label, isolated_atom, species, spin_of
from psiflow_core.testing.physics import full_stress, random_direction, random_strain, slope_along, slope_under_strain
from psiflow_core.testing.traces import Traces, left_by, portrait, together
from psiflow_core.testing.work import WorkContract

REASONS = {"unconverged", "bad input", "wall time", "memory", "hung", "engine"}


class ReferenceContract(WorkContract):
    """Labels obey physics, or the failure is typed."""

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

    @pytest.fixture
    def traces(self, molecule: Atoms, tmp_path: Path) -> Traces:
        found: Traces = self.once(
            "traces", lambda: left_by(lambda folder: self.build().label(molecule.copy(), LabelTask(folder)), tmp_path)
        )
        return found

    def label(self, atoms: Atoms, task: LabelTask) -> Label:
        """One label, in its own scratch folder."""
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
        self._takes(crystal)
        strain = random_strain(0)
        stress = self.label(crystal, task).stress
        if stress is None:
            pytest.skip("it gives no stress")
        assert stress.shape == (6,)
        slope = slope_under_strain(lambda atoms: self.label(atoms, task).energy, crystal, strain, self.step / 5)
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
        given.info["origin"] = {"walker": 3}
        before = portrait(given)
        self.label(given, task)
        assert portrait(given) == before

    def test_whole_cells_change_nothing(self, crystal: Atoms, task: LabelTask) -> None:
        """A walker's atoms leave the cell; where they are is not for a reference to put right."""
        self._takes(crystal)
        moved = crystal.copy()
        moved.positions[0] += np.asarray(crystal.cell)[0]
        before = portrait(moved)
        here, there = self.label(crystal, task), self.label(moved, task)
        assert portrait(moved) == before
        assert there.energy == pytest.approx(here.energy, abs=self.energy_tolerance)
        assert there.forces == pytest.approx(here.forces, abs=self.force_tolerance)

    def test_the_charge_matters_or_is_refused(self, molecule: Atoms, task: LabelTask) -> None:
        ion = molecule.copy()
        ion.info.update(charge=1, spin=2 if spin_of(molecule) == 1 else spin_of(molecule) - 1)
        try:
            self.build().check([ion])
            charged = self.label(ion, task)
        except PsiflowError:
            return
        assert abs(charged.energy - self.label(molecule, task).energy) > 0.1, "no ionisation energy is that small"

    def test_a_label_does_not_depend_on_those_before(self, molecule: Atoms, task: LabelTask) -> None:
        moved = molecule.copy()
        moved.positions[0] += [0.1, 0.1, -0.1]
        first, second, other, last = (self.label(atoms, task) for atoms in (molecule, molecule, moved, molecule))
        assert other.energy != first.energy
        for again in (second, last):
            assert again.energy == pytest.approx(first.energy, abs=self.energy_tolerance)
            assert again.forces == pytest.approx(first.forces, abs=self.force_tolerance)

    def test_labels_in_threads_do_not_disturb_each_other(self, molecule: Atoms, tmp_path: Path) -> None:
        """Workers may be threads of one process."""
        several = [molecule.copy() for _ in range(2)]
        several[1].positions[0] += [0.1, 0.1, -0.1]

        def energy(number: int, folder: str) -> float:
            (tmp_path / folder / str(number)).mkdir(parents=True)
            label: Label = self.build().label(several[number].copy(), LabelTask(tmp_path / folder / str(number)))
            return label.energy

        alone = [energy(number, "alone") for number in range(2)]
        both = together([partial(energy, number, "together") for number in range(2)])
        assert both == pytest.approx(alone, abs=self.energy_tolerance)

    def _takes(self, crystal: Atoms) -> None:
        """Skip the checks that a reference for molecules alone does not need."""
        try:
            self.build().check([crystal])
        except StructureError as error:
            pytest.skip(f"it takes no crystals: {error}")

    def test_failure_has_a_type_and_a_reason(self, impossible: Atoms, task: LabelTask) -> None:
        with pytest.raises(ReferenceFailed) as failure:
            self.label(impossible, task)
        assert failure.value.reason in REASONS
        assert str(failure.value)
