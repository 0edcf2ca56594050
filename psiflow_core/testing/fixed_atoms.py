"""What holds for every sampler where some atoms are fixed."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units

from psiflow_core.components import SamplingTask, Walker
from psiflow_core.constraints import fix, fixed_atoms
from psiflow_core.errors import StructureError
from psiflow_core.structures import is_labelled, label_of
from psiflow_core.testing.segment import SegmentContract, array_of, content, through_json

DRAWS = 150
"""Walkers whose first kinetic energies are averaged."""

RARE = 6.0
"""Standard errors by which an average is off less often than once in 10⁸ times."""


class FixedAtomsContract(SegmentContract):
    """Atoms under `ase.constraints.FixAtoms` stay exactly where they are, or the sampler refuses them beforehand."""

    @pytest.fixture
    def held(self, structure: Atoms) -> Atoms:
        """The structure with every second atom fixed."""
        if len(structure) < 2:
            pytest.skip("one atom cannot be fixed and move: override `structure`")
        fix(structure, np.arange(0, len(structure), 2))
        return structure

    def _accepted(self, held: Atoms) -> None:
        try:
            self.build().check([held])
        except StructureError as refusal:
            pytest.skip(f"fixed atoms are refused: {refusal}")

    def test_fixed_atoms_stay_where_they_are(self, held: Atoms) -> None:
        self._accepted(held)
        fixed, seen = fixed_atoms(held), list[Atoms]()
        task = SamplingTask(6, seed=1, check_every=2, stride=2)
        segment = self.sample(Walker(held), task, lambda step, atoms: seen.append(atoms.copy()))
        for atoms in (*seen, *segment.frames, segment.walker.structure):
            assert np.array_equal(atoms.positions[fixed], held.positions[fixed])
            assert np.array_equal(fixed_atoms(atoms), fixed)
            assert (atoms.positions != held.positions).any(axis=1)[~fixed].all()

    def test_a_sampler_that_refuses_fixed_atoms_refuses_to_move_them_too(self, held: Atoms) -> None:
        try:
            self.build().check([held])
        except StructureError:
            with pytest.raises(StructureError):
                self.sample(Walker(held), SamplingTask(2, seed=1))

    def test_fixed_atoms_have_no_momenta(self, held: Atoms) -> None:
        """Nor keep those that they are given."""
        self._accepted(held)
        fixed, pushed = fixed_atoms(held), held.copy()
        pushed.arrays["momenta"] = np.random.default_rng(0).normal(scale=5.0, size=(len(held), 3))
        for start in (held, pushed) if self.moves else (held,):
            momenta = self.sample(Walker(start), SamplingTask(2, seed=1)).walker.structure.get_momenta()
            assert not momenta[fixed].any()
            assert momenta[~fixed].any() == self.moves

    def test_frames_keep_the_forces_on_fixed_atoms(self, held: Atoms) -> None:
        """They are trained on, so that ASE's zeros must not get there: ``get_forces(apply_constraint=False)``."""
        self._accepted(held)
        frame = self.sample(Walker(held), SamplingTask(2, seed=1, stride=2)).frames[0]
        if is_labelled(frame):
            felt = frame.copy()
            felt.calc = self.forces()
            forces = felt.get_forces(apply_constraint=False)
            assert label_of(frame).forces == pytest.approx(forces, abs=1e-6)

    def test_two_segments_with_fixed_atoms_equal_one_of_twice_the_length(self, held: Atoms) -> None:
        self._accepted(held)
        once = self.sample(Walker(held), SamplingTask(14, seed=1)).walker
        half = self.sample(Walker(held), SamplingTask(7, seed=1)).walker
        twice = self.sample(through_json(half), SamplingTask(7, seed=1)).walker
        for name in ("positions", "momenta"):
            assert array_of(twice.structure, name) == pytest.approx(
                array_of(once.structure, name), rel=0, abs=self.tolerance
            )

    def test_a_state_is_not_continued_with_other_atoms_fixed(self, held: Atoms) -> None:
        """The engine's own memory of a walker may know which atoms it must not move."""
        self._accepted(held)
        walker = self.sample(Walker(held), SamplingTask(3, seed=1)).walker
        others = ~fixed_atoms(held)
        fix(walker.structure, np.flatnonzero(others))
        ended = self.sample(walker, SamplingTask(3, seed=1)).walker.structure
        assert np.array_equal(ended.positions[others], walker.structure.positions[others])
        assert (ended.positions != walker.structure.positions).any(axis=1)[~others].all()

    def test_the_temperature_is_that_of_the_atoms_that_move(self, held: Atoms) -> None:
        """Three degrees of freedom for each, in the mean over many walkers at their first step."""
        self._accepted(held)
        target, free = self.build().target_temperature(), int((~fixed_atoms(held)).sum())
        if target is None or not self.moves:
            pytest.skip("there is no target temperature")
        sampler, forces = self.build(), self.forces()
        segments = [sampler.sample(Walker(held), forces, SamplingTask(1, seed=n), content) for n in range(DRAWS)]
        kelvins = [2 * segment.walker.structure.get_kinetic_energy() / (3 * free * units.kB) for segment in segments]
        error = RARE * np.sqrt(2 / (3 * free) / DRAWS)
        assert np.mean(kelvins) == pytest.approx(target, rel=error)
        told = [segment.averages["temperature"] for segment in segments if "temperature" in segment.averages]
        assert not told or told == pytest.approx(kelvins)
