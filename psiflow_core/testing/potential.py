"""What holds for every potential."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from psiflow_core.components import Prediction, Predictor, TrainingResult, TrainingTask
from psiflow_core.errors import Interrupted, PsiflowError, TrainingFailed
from psiflow_core.structures import Label, Plain, label_of, to_plain, with_label
from psiflow_core.testing.component import fresh_python
from psiflow_core.testing.physics import (
    full_stress,
    random_direction,
    random_strain,
    rotated,
    slope_along,
    slope_under_strain,
)
from psiflow_core.testing.traces import Traces, left_by, opened, portrait, together, within
from psiflow_core.testing.work import WorkContract

FRESH = """
import json, sys
from pathlib import Path
from psiflow_core.registry.plugins import registry
from psiflow_core.structures import from_plain
name, options, model, structures = json.load(sys.stdin)
potential = registry().find("potential", name).component.parse(options)
said = potential.load(Path(model)).predict([from_plain(plain) for plain in structures])
print("energies", json.dumps([one.energy for one in said]))
"""


STEPS = 5
"""Gradient steps of a training that need not be good."""


@dataclass(frozen=True)
class Short:
    """Short trainings of one seed, each in its own folder, and their traces in the process."""

    results: list[TrainingResult]
    said: list[list[Prediction]]
    """What each model says of the structures of the validation set."""
    given: tuple[list[Plain], list[Plain]]
    """The structures that were given, before and after."""
    traces: Traces


class Asked:
    """Counts how often a training asks whether it has to stop.

    Args:
        last: the question to which the answer is yes.
    """

    def __init__(self, last: int | None) -> None:
        self._last = last
        self.times = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.times == self._last


class PotentialContract(WorkContract):
    """A trained model has the symmetries of physics, learns, and is the same wherever it is loaded."""

    steps: ClassVar[int | None] = None
    """Gradient steps of the trainings here; None leaves them to the options."""
    step: ClassVar[float] = 1e-3
    """Displacement of the finite differences. [Å]"""
    energy_tolerance: ClassVar[float] = 1e-5
    """Between predictions that should be equal. [eV]"""
    force_tolerance: ClassVar[float] = 1e-4
    """Likewise, and against finite differences. [eV/Å]"""

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls) -> list[Atoms]:
        """Labelled structures, molecules and crystals, with isolated atoms at 0 eV; override it."""
        return [_labelled(atoms) for seed in range(6) for atoms in (_cluster(seed), _crystal(seed))]

    @pytest.fixture(scope="class")
    @classmethod
    def atomic_energies(cls) -> dict[str, float]:
        """Energies of the isolated atoms of the data set. [eV]"""
        return {"Cu": 0.0, "Au": 0.0}

    @pytest.fixture(scope="class")
    @classmethod
    def task(
        cls,
        dataset: list[Atoms],
        atomic_energies: dict[str, float],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> TrainingTask:
        folder = tmp_path_factory.mktemp("training")
        return TrainingTask(dataset[:-2], dataset[-2:], atomic_energies, seed=1, folder=folder, steps=cls.steps)

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, task: TrainingTask) -> TrainingResult:
        with within(cls.patience, "a training"):
            result: TrainingResult = cls.build().train(task)
        return result

    @pytest.fixture(scope="class")
    @classmethod
    def short(cls, task: TrainingTask, tmp_path_factory: pytest.TempPathFactory) -> Short:
        structures, root = [*task.training, *task.validation], tmp_path_factory.mktemp("short")
        results: list[TrainingResult] = []
        said: list[list[Prediction]] = []

        def work(folder: Path) -> None:
            folder.mkdir(parents=True, exist_ok=True)  # as a campaign does
            results.append(cls.build().train(replace(task, steps=STEPS, folder=folder)))
            said.append(cls.load(results[-1]).predict(_copies(task.validation)))

        before = [portrait(atoms) for atoms in structures]
        with within(cls.patience, "a short training"):
            found = left_by(work, root)
            if len(results) < 2:
                work(root / "again")
        return Short(results, said, (before, [portrait(atoms) for atoms in structures]), found)

    @pytest.fixture
    def traces(self, short: Short) -> Traces:
        return short.traces

    @pytest.fixture(scope="class")
    @classmethod
    def predictor(cls, trained: TrainingResult) -> Predictor:
        return cls.load(trained)

    @pytest.fixture
    def unseen(self, dataset: list[Atoms]) -> list[Atoms]:
        """A molecule and a crystal without labels, as a list of two."""
        return [atoms.copy() for atoms in dataset[-2:]]

    @classmethod
    def load(cls, trained: TrainingResult) -> Predictor:
        predictor: Predictor = cls.build().load(trained.model)
        return predictor

    def test_training_says_how_good_the_model_is(self, trained: TrainingResult, task: TrainingTask) -> None:
        assert trained.model.is_relative_to(task.folder)
        assert trained.steps > 0
        for name in ("force_rmse", "force_mae", "energy_rmse", "energy_mae"):
            assert np.isfinite(trained.errors[name])

    def test_the_errors_that_it_reports_are_true(
        self, trained: TrainingResult, predictor: Predictor, task: TrainingTask
    ) -> None:
        rmse = _force_rmse(predictor, task.validation)
        assert trained.errors["force_rmse"] == pytest.approx(rmse, rel=1e-2)

    def test_training_beats_forces_of_zero(self, predictor: Predictor, task: TrainingTask) -> None:
        size = np.sqrt(np.mean(np.concatenate([label_of(atoms).forces.ravel() ** 2 for atoms in task.training])))
        assert _force_rmse(predictor, task.training) < 0.9 * size

    def test_a_batch_says_what_single_predictions_say(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        """In the order of the input, whatever its sizes."""
        moved = [atoms.copy() for atoms in unseen]
        for atoms in moved:
            atoms.rattle(0.05, seed=7)
        structures = [unseen[0], moved[1], moved[0], unseen[1], moved[0]]
        together = predictor.predict(structures)
        alone = [predictor.predict([atoms])[0] for atoms in structures]
        for one, other in zip(together, alone, strict=True):
            assert one.energy == pytest.approx(other.energy, abs=self.energy_tolerance)
            assert one.forces == pytest.approx(other.forces, abs=self.force_tolerance)
            assert (one.stress is None) == (other.stress is None)
            if one.stress is not None:
                assert one.stress == pytest.approx(other.stress, abs=self.force_tolerance)

    def test_of_no_structures_nothing_is_said(self, predictor: Predictor) -> None:
        assert list(predictor.predict([])) == []

    def test_only_periodic_structures_have_a_stress(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms, said in zip(unseen, predictor.predict(unseen), strict=True):
            assert said.stress is None or bool(atoms.pbc.all())

    def test_forces_are_the_gradient_of_the_energy(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms in unseen:
            direction = random_direction(atoms, 0)
            slope = slope_along(lambda moved: predictor.predict([moved])[0].energy, atoms, direction, self.step)
            said = -float(np.vdot(predictor.predict([atoms])[0].forces, direction))
            assert said == pytest.approx(slope, abs=self.force_tolerance)

    def test_stress_is_the_strain_derivative_of_the_energy(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        atoms = next(atoms for atoms in unseen if atoms.pbc.all())
        stress = predictor.predict([atoms])[0].stress
        if stress is None:
            pytest.skip("it gives no stress")
        strain = random_strain(0)
        slope = slope_under_strain(lambda deformed: predictor.predict([deformed])[0].energy, atoms, strain, self.step)
        said = float(np.vdot(full_stress(stress), strain)) * atoms.get_volume()
        assert said == pytest.approx(slope, abs=10 * self.force_tolerance)

    def test_rotation_turns_the_forces_and_nothing_else(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms in unseen:
            turned, rotation = rotated(atoms)
            here, there = predictor.predict([atoms, turned])
            assert there.energy == pytest.approx(here.energy, abs=self.energy_tolerance)
            assert there.forces == pytest.approx(here.forces @ rotation, abs=self.force_tolerance)

    def test_translation_changes_nothing(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms in unseen:
            moved = atoms.copy()
            moved.positions += [0.3, -0.2, 0.1]
            here, there = predictor.predict([atoms, moved])
            assert there.energy == pytest.approx(here.energy, abs=self.energy_tolerance)
            assert there.forces == pytest.approx(here.forces, abs=self.force_tolerance)

    def test_the_order_of_atoms_changes_nothing(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms in unseen:
            order = np.arange(len(atoms))[::-1]
            here, there = predictor.predict([atoms, atoms[order]])
            assert there.energy == pytest.approx(here.energy, abs=self.energy_tolerance)
            assert there.forces == pytest.approx(here.forces[order], abs=self.force_tolerance)

    def test_an_isolated_atom_has_the_energy_it_was_given(
        self, predictor: Predictor, atomic_energies: dict[str, float]
    ) -> None:
        atoms = [Atoms(symbol) for symbol in atomic_energies]
        said = [one.energy for one in predictor.predict(atoms)]
        assert said == pytest.approx(list(atomic_energies.values()), abs=self.energy_tolerance)

    def test_whole_cells_change_nothing(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms in (one for one in unseen if one.pbc.all()):
            moved = atoms.copy()
            moved.positions[0] += np.asarray(atoms.cell)[0]
            here, there = predictor.predict([atoms, moved])
            assert there.energy == pytest.approx(here.energy, abs=self.energy_tolerance)
            assert there.forces == pytest.approx(here.forces, abs=self.force_tolerance)

    def test_nothing_is_seen_beyond_the_cutoff(self, predictor: Predictor, atomic_energies: dict[str, float]) -> None:
        """Boxes and lists of neighbours are made by it."""
        first, last = min(atomic_energies), max(atomic_energies)
        apart = [max(predictor.cutoff, 1.0) + further for further in (0.1, 0.5, 1.0, 2.0, 50.0)]
        said = predictor.predict([Atoms([first, last], [[0, 0, 0], [0, 0, distance]]) for distance in apart])
        assert [one.energy for one in said] == pytest.approx([said[-1].energy] * len(said), abs=self.energy_tolerance)

    def test_energies_of_what_is_far_apart_add_up(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        cluster = next(atoms for atoms in unseen if not atoms.pbc.any())
        far = cluster.copy()
        far.positions += [0.0, 0.0, 10 * max(predictor.cutoff, 1.0) + 50.0]
        here, both = predictor.predict([cluster, cluster + far])
        assert both.energy == pytest.approx(2 * here.energy, abs=2 * self.energy_tolerance)
        assert both.forces == pytest.approx(np.concatenate([here.forces] * 2), abs=self.force_tolerance)

    def test_predicting_changes_no_structure(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms in unseen:
            atoms.info.update(charge=0, origin={"walker": 3})
            atoms.positions[0] += np.asarray(atoms.cell)[0]
            atoms.set_momenta(np.ones((len(atoms), 3)))
        before = [portrait(atoms) for atoms in unseen]
        predictor.predict(unseen)
        assert [portrait(atoms) for atoms in unseen] == before

    def test_training_changes_no_structure(self, short: Short) -> None:
        before, after = short.given
        assert after == before

    def test_a_prediction_does_not_depend_on_those_before(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        first, second, _, last = (predictor.predict([unseen[number]])[0] for number in (0, 0, 1, 0))
        for again in (second, last):
            assert again.energy == pytest.approx(first.energy, abs=self.energy_tolerance)
            assert again.forces == pytest.approx(first.forces, abs=self.force_tolerance)

    def test_predictions_in_threads_do_not_disturb_each_other(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        """Workers may be threads of one process."""
        works = [partial(predictor.predict, [atoms]) for atoms in unseen]
        alone = [work()[0].energy for work in works]
        for _ in range(5):
            said = [one[0].energy for one in together(works)]
            assert said == pytest.approx(alone, abs=self.energy_tolerance)

    def test_its_calculator_can_be_copied_and_pickled(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        for atoms in unseen:
            atoms.calc = predictor.calculator()
            for other in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
                forces = [one.get_forces(apply_constraint=False) for one in (other, atoms)]
                assert forces[0] == pytest.approx(forces[1], abs=self.force_tolerance)

    def test_the_charge_matters_or_is_refused(self, task: TrainingTask, tmp_path: Path) -> None:
        """Of one composition with two charges, that is; a network that sees atoms alone would learn the mean."""
        neutral = [atoms for atoms in task.training if not atoms.pbc.any()]
        ions = [_charged(atoms, 5.0) for atoms in neutral]
        try:
            self.build().check([neutral[0], ions[0]])
            both = self.build().train(replace(task, training=[*task.training, *ions], folder=tmp_path))
        except PsiflowError:
            return
        here, there = self.load(both).predict(_copies([neutral[0], ions[0]]))
        assert there.energy - here.energy > 1.0, "5 eV are between them"

    def test_features_do_not_turn_with_the_structure(self, predictor: Predictor, unseen: list[Atoms]) -> None:
        try:
            predictor.features(unseen)
        except NotImplementedError as error:
            pytest.skip(str(error))
        for atoms in unseen:
            here, there = predictor.features([atoms, rotated(atoms)[0]])
            assert here.shape[0] == len(atoms)
            assert here.std() > 0
            assert there == pytest.approx(here, rel=1e-3, abs=1e-4)

    def test_a_model_says_the_same_in_another_process(
        self, trained: TrainingResult, predictor: Predictor, unseen: list[Atoms]
    ) -> None:
        plain = [to_plain(atoms) for atoms in unseen]
        printed = fresh_python(FRESH, [self.component.name, self.options, str(trained.model), plain])
        last = next(line for line in printed.splitlines() if line.startswith("energies"))
        here = [one.energy for one in predictor.predict(unseen)]
        assert _numbers(last) == pytest.approx(here, abs=self.energy_tolerance)

    def test_training_again_in_the_same_folder_repeats_nothing(
        self, trained: TrainingResult, task: TrainingTask, unseen: list[Atoms]
    ) -> None:
        before = [one.energy for one in self.load(trained).predict(unseen)]
        again = self.build().train(task)
        assert again.steps == trained.steps
        assert [one.energy for one in self.load(again).predict(unseen)] == pytest.approx(
            before, abs=self.energy_tolerance
        )

    def test_a_training_takes_the_steps_that_it_is_asked_for(
        self, short: Short, trained: TrainingResult, task: TrainingTask, predictor: Predictor
    ) -> None:
        assert [result.steps for result in short.results] == [STEPS] * len(short.results)
        assert trained.steps <= (task.steps or trained.steps)
        for result in (trained, *short.results):
            assert all(0 <= entry["step"] <= result.steps for entry in result.history)
        if trained.steps > STEPS:
            assert _furthest(short.said[0], predictor.predict(_copies(task.validation))) > self.force_tolerance

    def test_the_same_seed_gives_the_same_model(self, short: Short) -> None:
        """A task that is repeated after a loss gives the same result."""
        first, second = short.said[:2]
        assert _furthest(first, second) < self.force_tolerance
        assert [one.energy for one in second] == pytest.approx([one.energy for one in first], abs=self.energy_tolerance)

    def test_an_interrupted_training_is_resumed(self, short: Short, task: TrainingTask) -> None:
        """One that was killed before it could write its model: the steps are in a checkpoint, which is read."""
        result = short.results[-1]
        result.model.unlink()
        folder = next(parent for parent in result.model.parents if parent.name in ("own", "again"))
        left = {str(file.resolve()) for file in folder.rglob("*") if file.is_file()}
        with opened() as files:
            again = self.build().train(replace(task, steps=STEPS, folder=folder))
        assert left & set(files), "nothing of the earlier attempt was read: the steps were taken again"
        assert again.steps == result.steps
        assert _furthest(short.said[-1], self.load(again).predict(_copies(task.validation))) < self.force_tolerance

    def test_a_training_that_has_to_stop_goes_on_from_there(
        self, short: Short, task: TrainingTask, tmp_path: Path
    ) -> None:
        """The time of its worker is over after two steps: it leaves a checkpoint, and takes only the others later."""
        first, second = Asked(2), Asked(None)
        whole = replace(task, steps=STEPS, folder=tmp_path)
        try:
            self.build().train(replace(whole, interrupted=first))
        except Interrupted:
            pass
        else:
            assert not first.times, "it was told to stop, and did not"
            pytest.skip("it does not ask whether it has to stop")
        again = self.build().train(replace(whole, interrupted=second))
        assert again.steps == STEPS
        assert second.times <= STEPS - first.times, "the steps before the interruption were taken again"
        assert _furthest(short.said[0], self.load(again).predict(_copies(task.validation))) < self.force_tolerance

    def test_an_export_is_written_where_it_is_asked_for(self, trained: TrainingResult, tmp_path: Path) -> None:
        before, target = trained.model.read_bytes(), tmp_path / f"exported{self.component.native_suffix}"
        try:
            self.build().export(trained.model, target)
        except NotImplementedError as error:
            pytest.skip(str(error))
        assert target.exists()
        assert trained.model.read_bytes() == before

    def test_seeds_make_members_of_a_committee_differ(
        self, predictor: Predictor, task: TrainingTask, unseen: list[Atoms], tmp_path: Path
    ) -> None:
        other = self.load(self.build().train(replace(task, seed=2, folder=tmp_path)))
        apart = [a.forces - b.forces for a, b in zip(predictor.predict(unseen), other.predict(unseen), strict=True)]
        assert max(float(np.abs(difference).max()) for difference in apart) > self.force_tolerance

    def test_a_child_starts_where_its_parent_ended(
        self, trained: TrainingResult, predictor: Predictor, task: TrainingTask, tmp_path: Path
    ) -> None:
        child = self.build().train(replace(task, parent=trained.model, steps=1, folder=tmp_path, seed=3))
        assert _force_rmse(self.load(child), task.training) < 1.5 * _force_rmse(predictor, task.training)

    def test_there_must_be_something_to_train_on(self, task: TrainingTask, tmp_path: Path) -> None:
        with pytest.raises(TrainingFailed):
            self.build().train(replace(task, training=[], folder=tmp_path))

    def test_labels_that_are_not_numbers_are_refused(self, task: TrainingTask, tmp_path: Path) -> None:
        first = task.training[0]
        bad = with_label(first, Label(float("nan"), label_of(first).forces))
        with pytest.raises(TrainingFailed):
            self.build().train(replace(task, training=[bad, *task.training[1:]], folder=tmp_path))


def _cluster(seed: int) -> Atoms:
    atoms = Atoms("Cu3Au", [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]])
    atoms.rattle(0.15, seed=seed)
    return atoms


def _crystal(seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    atoms.set_cell(atoms.cell * (1 + 0.02 * (seed - 2.5) / 2.5), scale_atoms=True)
    atoms.rattle(0.15, seed=seed)
    return atoms


def _charged(atoms: Atoms, energy: float) -> Atoms:
    """The structure less an electron, with an energy that is higher by so much. [eV]"""
    label, ion = label_of(atoms), atoms.copy()
    ion.info.update(charge=1, spin=1 + (int(ion.numbers.sum()) - 1) % 2)
    return with_label(ion, replace(label, energy=label.energy + energy))


def _copies(structures: Sequence[Atoms]) -> list[Atoms]:
    """Copies of the data set for a predictor: one check looks at its changes to them."""
    return [atoms.copy() for atoms in structures]


def _furthest(some: list[Prediction], others: list[Prediction]) -> float:
    """The largest difference of a force component. [eV/Å]"""
    return max(float(np.abs(one.forces - other.forces).max()) for one, other in zip(some, others, strict=True))


def _labelled(atoms: Atoms) -> Atoms:
    """With EMT's energy relative to isolated atoms, which EMT puts at these values."""
    isolated = sum(_emt(Atoms(symbol)).energy for symbol in atoms.symbols)
    label = _emt(atoms)
    return with_label(atoms, replace(label, energy=label.energy - isolated))


def _emt(atoms: Atoms) -> Label:
    measured = atoms.copy()
    measured.calc = EMT()
    stress = measured.get_stress() if measured.pbc.all() else None
    return Label(measured.get_potential_energy(), measured.get_forces(apply_constraint=False), stress)


def _force_rmse(predictor: Predictor, structures: Any) -> float:
    said = predictor.predict(_copies(structures))
    pairs = zip(said, structures, strict=True)
    errors = [(one.forces - label_of(atoms).forces).ravel() for one, atoms in pairs]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def _numbers(line: str) -> list[float]:
    import json

    return [float(number) for number in json.loads(line.removeprefix("energies"))]
