"""What holds for every sampler."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from psiflow_core.components import (
    Bias,
    CalculatorPredictor,
    Prediction,
    Predictor,
    PredictorCalculator,
    SamplingTask,
    Segment,
    Walker,
)
from psiflow_core.errors import PsiflowError, WalkerExploded
from psiflow_core.sampling.bias import Metadynamics, MovingHarmonic, WalkerBias
from psiflow_core.sampling.monitor import remembering
from psiflow_core.sampling.variables import Distance
from psiflow_core.structures import Plain, digest, from_plain, label_of, to_plain
from psiflow_core.testing.fixed_atoms import FixedAtomsContract
from psiflow_core.testing.segment import array_of, content, through_json
from psiflow_core.testing.traces import portrait, together


class SamplerContract(FixedAtomsContract):
    """Segments are long enough, exact where they meet, watched, and independent of one another."""

    def test_a_segment_takes_the_steps_that_it_is_asked_for(self, structure: Atoms) -> None:
        segment = self.sample(Walker(structure, step=3), SamplingTask(7, seed=1))
        assert (segment.steps, segment.walker.step) == (7, 10)
        assert segment.stopped is None
        assert digest(segment.walker.structure) != digest(structure)

    def test_what_a_segment_tells_is_plain_data(self, structure: Atoms) -> None:
        """It crosses to the driver as JSON, which takes no number or truth value of numpy's."""
        segment = self.sample(Walker(structure), SamplingTask(4, seed=1))
        told = [segment.steps, segment.stopped, segment.finished, segment.averages, segment.walker.step]
        assert json.loads(json.dumps(told)) == told

    def test_a_segment_of_no_steps_goes_nowhere(self, structure: Atoms) -> None:
        segment = self.sample(Walker(structure), SamplingTask(0, seed=1))
        assert segment.steps == 0
        for name in ("positions", "cell"):
            assert np.array_equal(array_of(segment.walker.structure, name), array_of(structure, name))

    def test_two_segments_equal_one_of_twice_the_length(self, structure: Atoms) -> None:
        once = self.sample(Walker(structure), SamplingTask(14, seed=1)).walker
        half = self.sample(Walker(structure), SamplingTask(7, seed=1)).walker
        twice = self.sample(through_json(half), SamplingTask(7, seed=1)).walker
        assert twice.step == once.step
        for name in ("positions", "cell", "momenta"):
            assert array_of(twice.structure, name) == pytest.approx(
                array_of(once.structure, name), rel=0, abs=self.tolerance
            )

    def test_a_bias_acts_alike_where_a_segment_is_cut(self, structure: Atoms) -> None:
        """Hills are put, and restraints move, at checks: a sampler that keeps forces must not notice too late."""
        bond = Distance(atoms=(0, 1))
        biases = [
            Metadynamics(variables=(bond,), sigma=0.1, height=0.05, every=7, bias_factor=None),
            MovingHarmonic(variable=bond, stop=bond.value(structure) + 0.2, steps=14, stiffness=0.5),
        ]
        once, hills = self._biased(biases, Walker(structure), [], steps=21)
        walker, kept = Walker(structure), list[Plain]()
        for _ in range(3):
            walker, kept = self._biased(biases, through_json(walker), kept, steps=7)
        assert len(kept[0]["hills"]) == len(hills[0]["hills"]) == 3
        assert kept[0]["step"] == hills[0]["step"] == 21
        for name in ("positions", "cell", "momenta"):
            assert array_of(walker.structure, name) == pytest.approx(
                array_of(once.structure, name), rel=0, abs=self.tolerance
            )

    def _biased(
        self, biases: Sequence[Bias], walker: Walker, kept: list[Plain], steps: int
    ) -> tuple[Walker, list[Plain]]:
        sampler, forces = self.build(), self.forces()
        bias = WalkerBias(biases, walker, kept, sampler.target_temperature())
        unbiased = CalculatorPredictor(forces)
        biased = PredictorCalculator(unbiased, bias.over(lambda atoms: unbiased.predict([atoms])[0]))
        task = SamplingTask(steps, seed=1, check_every=7)
        segment: Segment = sampler.sample(walker, biased, task, remembering(content, bias))
        return segment.walker, json.loads(json.dumps(bias.to_plain()))

    def test_the_same_seed_gives_the_same_segment(self, structure: Atoms) -> None:
        first, second = (self.sample(Walker(structure), SamplingTask(5, seed=1)) for _ in range(2))
        assert digest(first.walker.structure) == digest(second.walker.structure)

    def test_the_seed_matters_where_something_is_random(self, structure: Atoms) -> None:
        first, second = (self.sample(Walker(structure), SamplingTask(5, seed=seed)) for seed in (1, 2))
        assert (digest(first.walker.structure) != digest(second.walker.structure)) == self.random

    def test_the_monitor_is_asked_in_time_and_at_the_end(self, structure: Atoms) -> None:
        asked = []
        self.sample(Walker(structure), SamplingTask(8, seed=1, check_every=3), lambda step, _: asked.append(step))
        assert asked == [3, 6, 8]

    def test_the_monitor_sees_a_walker_that_has_nowhere_to_go(self, structure: Atoms) -> None:
        """An optimisation that is at its minimum already; dynamics can always move."""
        walker = Walker(structure)
        for _ in range(1 if self.moves or self.random else 40):
            walker = self.sample(walker, SamplingTask(50, seed=1)).walker
        asked: list[tuple[int, Atoms]] = []
        segment = self.sample(walker, SamplingTask(2, seed=1), lambda *seen: asked.append(seen))
        assert asked[-1][0] == segment.steps
        assert digest(asked[-1][1]) == digest(segment.walker.structure)
        assert segment.finished == (segment.steps == 0)
        assert segment.steps or len(asked) == 1

    def test_the_monitor_stops_the_walker_where_it_is(self, structure: Atoms) -> None:
        seen = []

        def monitor(step: int, atoms: Atoms) -> str | None:
            seen.append(digest(atoms))
            return "far enough" if step == 4 else None

        segment = self.sample(Walker(structure), SamplingTask(20, seed=1, check_every=2), monitor)
        assert (segment.stopped, segment.steps) == ("far enough", 4)
        assert digest(segment.walker.structure) == seen[-1]

    def test_frames_come_at_their_stride(self, structure: Atoms) -> None:
        segment = self.sample(Walker(structure), SamplingTask(9, seed=1, stride=3))
        assert len(segment.frames) == 3
        assert digest(segment.frames[-1]) == digest(segment.walker.structure)
        assert len({digest(frame) for frame in segment.frames}) == 3
        assert not self.sample(Walker(structure), SamplingTask(9, seed=1)).frames

    def test_frames_are_counted_from_the_walkers_start(self, structure: Atoms) -> None:
        walker, frames = Walker(structure), []
        for _ in range(2):
            segment = self.sample(walker, SamplingTask(7, seed=1, stride=5))
            walker = through_json(segment.walker)
            frames.append(segment.frames)
        assert [len(kept) for kept in frames] == [1, 1]  # steps 5 and 10
        third = self.sample(self.sample(Walker(structure), SamplingTask(7, seed=1)).walker, SamplingTask(3, seed=1))
        assert digest(frames[1][0]) == digest(third.walker.structure)

    def test_frames_carry_energy_and_forces(self, structure: Atoms) -> None:
        frame = self.sample(Walker(structure), SamplingTask(4, seed=1, stride=4)).frames[0]
        label, fresh = label_of(frame), from_plain(to_plain(frame))
        fresh.calc = self.forces()
        assert label.energy == pytest.approx(fresh.get_potential_energy(), abs=1e-6)
        assert label.forces == pytest.approx(fresh.get_forces(apply_constraint=False), abs=1e-6)

    def test_a_walker_that_moves_in_time_is_given_momenta(self, structure: Atoms) -> None:
        walker = self.sample(Walker(structure), SamplingTask(1, seed=1)).walker
        assert bool(walker.structure.get_momenta().any()) == self.moves

    def test_momenta_of_zero_are_none(self, structure: Atoms) -> None:
        """A file that has been at rest, or that has a column for momenta and nothing in it."""
        still = structure.copy()
        still.set_momenta(np.zeros((len(still), 3)))
        ends = [self.sample(Walker(atoms), SamplingTask(3, seed=1)).walker.structure for atoms in (structure, still)]
        assert np.array_equal(ends[0].get_momenta(), ends[1].get_momenta())

    def test_a_walker_with_momenta_keeps_its_way(self, structure: Atoms) -> None:
        fast = structure.copy()
        fast.set_momenta(np.random.default_rng(0).normal(scale=20.0, size=(len(fast), 3)))
        before = fast.get_momenta()
        after = self.sample(Walker(fast), SamplingTask(1, seed=1)).walker.structure.get_momenta()
        assert (np.vdot(after, before) > 0.5 * np.vdot(before, before)) or not self.moves

    def test_what_the_forces_raise_comes_out_as_it_is(self, structure: Atoms) -> None:
        error = WalkerExploded("no finite answer")

        def fail(atoms: Atoms) -> Prediction:
            raise error

        forces = PredictorCalculator(CalculatorPredictor(EMT()), ask=fail)
        with pytest.raises(WalkerExploded) as raised:
            self.build().sample(Walker(structure), forces, SamplingTask(5, seed=1), content)
        assert raised.value is error

    def test_walkers_in_threads_do_not_disturb_each_other(self, structure: Atoms) -> None:
        """Their force calls wait for each other, so that each goes on when all have begun."""
        meeting = threading.Barrier(3)

        def end(seed: int, forces: Calculator) -> str:
            task = SamplingTask(5, seed=seed)
            segment: Segment = self.build().sample(Walker(structure), forces, task, content)
            return digest(segment.walker.structure)

        alone = [end(seed, self.forces()) for seed in range(3)]
        works = [partial(end, seed, _waiting(self.forces(), meeting)) for seed in range(3)]
        assert together(works) == alone

    def test_the_walker_that_is_given_does_not_change(self, structure: Atoms) -> None:
        structure.info["origin"] = {"walker": 3}
        before = portrait(structure)
        self.sample(Walker(structure), SamplingTask(5, seed=1))
        assert portrait(structure) == before

    def test_a_walker_moves(self, structure: Atoms) -> None:
        seen = [structure.positions.copy()]
        self.sample(
            Walker(structure),
            SamplingTask(6, seed=1, check_every=2),
            lambda step, atoms: seen.append(atoms.positions.copy()),
        )
        steps = [float(np.abs(after - before).max()) for before, after in pairwise(seen)]
        assert all(step > 0 for step in steps)

    def test_the_monitor_sees_the_walker_as_it_ends(self, structure: Atoms) -> None:
        seen: list[Atoms] = []
        segment = self.sample(
            Walker(structure), SamplingTask(4, seed=1, check_every=2), lambda step, atoms: seen.append(atoms.copy())
        )
        for name in ("positions", "cell", "momenta"):
            assert np.array_equal(array_of(seen[-1], name), array_of(segment.walker.structure, name))

    def test_what_a_structure_says_of_itself_stays_with_it(self, structure: Atoms) -> None:
        """Charge and spin decide its forces and its label; its origin is kept too."""
        structure.info.update(charge=1, spin=2, origin="a walker")
        structure.set_tags(range(len(structure)))
        said = dict(structure.info)
        seen: list[Atoms] = []
        felt = PredictorCalculator(_Seeing(CalculatorPredictor(self.forces()), seen))
        monitored: list[Atoms] = []
        segment: Segment = self.build().sample(
            Walker(structure),
            felt,
            SamplingTask(4, seed=1, check_every=2, stride=2),
            lambda step, atoms: monitored.append(atoms.copy()),
        )
        for atoms in (*seen, *monitored, *segment.frames, segment.walker.structure):
            assert {name: atoms.info.get(name) for name in ("charge", "spin")} == {"charge": 1, "spin": 2}
            assert np.array_equal(atoms.numbers, structure.numbers)
            assert np.array_equal(atoms.pbc, structure.pbc)
        assert segment.walker.structure.info == said
        assert np.array_equal(segment.walker.structure.get_tags(), structure.get_tags())

    def test_atoms_are_not_folded_into_the_cell(self, structure: Atoms) -> None:
        """The progress of a walker, and a variable along its path, would be lost."""
        if not structure.pbc.any():
            pytest.skip("nothing is periodic here: override `structure`")
        structure.positions += np.asarray(structure.cell)[structure.pbc].sum(axis=0) * 1.5
        segment = self.sample(Walker(structure), SamplingTask(4, seed=1, stride=2))
        edge = 0.5 * structure.cell.lengths()[structure.pbc].min()
        for atoms in (*segment.frames, segment.walker.structure):
            assert np.abs(atoms.positions - structure.positions).max() < edge

    @pytest.mark.parametrize("state", [b"", b"{}", b'{"sampler": "another"}', b"\x80\x04\x95another's"])
    def test_a_state_of_another_sampler_is_refused(self, structure: Atoms, state: bytes) -> None:
        with pytest.raises(PsiflowError):
            self.sample(Walker(structure, state, step=3), SamplingTask(2, seed=1))


class _Seeing(Predictor):
    """Remembers the structures that it was asked about."""

    def __init__(self, predictor: Predictor, seen: list[Atoms]) -> None:
        self._predictor, self._seen = predictor, seen

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        self._seen.extend(atoms.copy() for atoms in structures)
        return self._predictor.predict(structures)


def _waiting(forces: Calculator, meeting: threading.Barrier) -> Calculator:
    """A calculator whose calls wait for those of the others, as long as there are some."""
    predictor = CalculatorPredictor(forces)

    def ask(atoms: Atoms) -> Prediction:
        with suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=1.0)
        return predictor.predict([atoms])[0]

    return PredictorCalculator(predictor, ask)
