"""Components that keep every promise but one: each is caught by one check of the contracts. For tests alone.

They have the names of the toys, under which a registry finds those: whoever tests them leaves that check out.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from psiflow_core.builtin.random_displacement import RandomDisplacement
from psiflow_core.components import (
    LabelTask,
    Monitor,
    Prediction,
    Predictor,
    SamplingTask,
    Segment,
    TrainingResult,
    TrainingTask,
    Walker,
)
from psiflow_core.constraints import fix, fixed_atoms, unconstrained
from psiflow_core.errors import Interrupted, StructureError
from psiflow_core.structures import Label, charge_of
from psiflow_toys.pairs import Array
from psiflow_toys.potential import ToyModel, ToyPotential, ToyPredictor, errors
from psiflow_toys.reference import ToyReference


def changes_the_working_directory() -> None:
    os.chdir(tempfile.gettempdir())


def changes_environment_variables() -> None:
    os.environ["OMP_NUM_THREADS"] = "17"


def changes_random_numbers() -> None:
    random.seed(1)


def changes_random_numbers_of_numpy() -> None:
    np.random.seed(1)


def changes_how_numpy_treats_errors() -> None:
    np.seterr(all="raise", under="ignore")


def changes_the_mask_of_files() -> None:
    os.umask(0o077)


def leaves_a_file() -> None:
    Path("job.out").write_text("energy")


def leaves_a_temporary_file() -> None:
    tempfile.mkdtemp()


def leaves_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def leaves_a_process() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)


def hangs() -> None:
    time.sleep(600)


BAD_HABITS: dict[str, Callable[[], None]] = {
    "test_the_working_directory_is_left_alone": changes_the_working_directory,
    "test_environment_variables_are_left_alone": changes_environment_variables,
    "test_global_random_numbers_are_left_alone": changes_random_numbers_of_numpy,
    "test_numpy_goes_on_to_treat_errors_as_before": changes_how_numpy_treats_errors,
    "test_settings_of_the_process_are_left_alone": changes_the_mask_of_files,
    "test_no_file_is_left_outside_its_folder": leaves_a_file,
    "test_no_thread_is_left": leaves_a_thread,
    "test_no_process_is_left": leaves_a_process,
}
"""By the check that catches them, whatever the kind of component."""

# References ------------------------------------------------------------------------------------------------


class SoundReference(ToyReference):
    """Morse pairs that know nothing of charges, and say so."""

    habit: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    """What it does before it does anything."""

    def check(self, structures: Sequence[Atoms]) -> None:
        if any(charge_of(atoms) for atoms in structures):
            raise StructureError("the toy knows nothing of charges; leave them out")

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        self.habit()
        return super().label(structure, task)


class IgnoresCharge(SoundReference):
    """A charged structure has the label of a neutral one."""

    def check(self, structures: Sequence[Atoms]) -> None:
        return


class LosesInfo(SoundReference):
    """It takes away what it has read."""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        structure.info.clear()
        return super().label(structure, task)


class WrapsReference(SoundReference):
    """It folds a crystal into its cell, in the structure that it was given."""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        structure.wrap()
        return super().label(structure, task)


class SeesTheCell(SoundReference):
    """Atoms outside the cell have neighbours inside alone."""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        label = super().label(structure, task)
        outside = np.abs(structure.get_scaled_positions(wrap=False)).max() > 0.8 if structure.pbc.all() else False
        return replace(label, energy=label.energy + outside)


class Remembers(SoundReference):
    """It begins where the structure before has ended."""

    energies: ClassVar[list[float]] = [0.0]

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        label = super().label(structure, task)
        drift = 0.0 if len(self.energies) < 2 or self.energies[-1] == label.energy else 1e-3
        self.energies.append(label.energy)
        return replace(label, energy=label.energy + drift)


class TurnsStress(SoundReference):
    """Pressure for stress."""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        label = super().label(structure, task)
        return replace(label, stress=None if label.stress is None else -label.stress)


class SharesReference(SoundReference):
    """One file for all that run at once."""

    current: ClassVar[list[Atoms]] = []

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        self.current.append(structure)
        time.sleep(0.05)
        return super().label(self.current[-1], task)


# Potentials ------------------------------------------------------------------------------------------------


class SoundPotential(ToyPotential):
    """The toy's fit, reached step by step, with a checkpoint."""

    habit: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    def check(self, structures: Sequence[Atoms]) -> None:
        if any(charge_of(atoms) for atoms in structures):
            raise StructureError("the toy knows nothing of charges; leave them out")

    def train(self, task: TrainingTask) -> TrainingResult:
        self.habit()
        steps, checkpoint = self._steps(task), task.folder / "checkpoint.json"
        if not self._resumes(checkpoint):
            result = super().train(task)
            fitted = ToyModel.load(result.model)
            checkpoint.write_text(json.dumps(asdict(fitted if task.parent else self._moved(fitted, steps))))
        model, path = ToyModel(**json.loads(checkpoint.read_text())), task.folder / "model.json"
        path.write_text(json.dumps(asdict(model)))
        return TrainingResult(path, self._told(steps), errors(ToyPredictor(model), task.validation or task.training))

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        return ToyPredictor(ToyModel.load(model))

    def _steps(self, task: TrainingTask) -> int:
        return task.steps or 40

    def _told(self, steps: int) -> int:
        return steps

    def _resumes(self, checkpoint: Path) -> bool:
        return checkpoint.exists()

    def _moved(self, model: ToyModel, steps: int) -> ToyModel:
        share = 1 - 0.5**steps
        return replace(model, weights={pair: [share * one for one in ws] for pair, ws in model.weights.items()})


class IgnoresChargePotential(SoundPotential):
    """It learns the mean of two charges."""

    def check(self, structures: Sequence[Atoms]) -> None:
        return


class IgnoresSteps(SoundPotential):
    """As many as it likes, whatever it tells."""

    def _moved(self, model: ToyModel, steps: int) -> ToyModel:
        return model


class MisreportsSteps(SoundPotential):
    """One more than it took."""

    def _told(self, steps: int) -> int:
        return steps + 1


class NeverResumes(SoundPotential):
    """It begins again from the beginning."""

    def _resumes(self, checkpoint: Path) -> bool:
        return False


class ForgetsWhenInterrupted(SoundPotential):
    """It stops when it has to, and leaves nothing."""

    def train(self, task: TrainingTask) -> TrainingResult:
        try:
            return super().train(task)
        except Interrupted:
            (task.folder / "steps.json").unlink()
            raise


class Undetermined(SoundPotential):
    """Its weights are drawn anew each time."""

    def _moved(self, model: ToyModel, steps: int) -> ToyModel:
        factor = np.random.default_rng().uniform(0.95, 1.05)
        moved = super()._moved(model, steps)
        return replace(moved, weights={pair: [factor * one for one in ws] for pair, ws in moved.weights.items()})


class ChangesTrainingSet(SoundPotential):
    """It leaves notes in the structures that it learns from."""

    def train(self, task: TrainingTask) -> TrainingResult:
        for atoms in task.training:
            atoms.info["weight"] = atoms.info.get("weight", 0) + 1
        return super().train(task)


class Watched(ToyPredictor):
    """A predictor whose answers are those of the toy, with one fault."""

    memory: ClassVar[list[float]] = []

    def __init__(self, model: ToyModel, fault: str) -> None:
        super().__init__(model)
        self.fault = fault
        self.current: Sequence[Atoms] = []
        if fault == "cutoff 0":
            self.cutoff = 0.0
        if fault == "stays":
            self.lock = threading.Lock()  # which cannot be pickled

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return getattr(self, f"_{self.fault.replace(' ', '_')}")(structures)

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        if self.fault == "no features":
            raise NotImplementedError("the toy has no features")
        return super().features(structures)

    def _cutoff_0(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return super().predict(structures)

    _no_features = _stays = _cutoff_0

    def _wraps(self, structures: Sequence[Atoms]) -> list[Prediction]:
        for atoms in structures:
            atoms.wrap()
        return super().predict(structures)

    def _other_order(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return super().predict(sorted(structures, key=lambda atoms: -atoms.pbc.sum()))

    def _averages(self, structures: Sequence[Atoms]) -> list[Prediction]:
        share = 1e-3 * (len(structures) - 1)
        return [
            replace(one, stress=None if one.stress is None else one.stress + share)
            for one in super().predict(structures)
        ]

    def _intensive(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [
            replace(one, energy=one.energy - 1e-3 * (len(atoms) > 7))
            for one, atoms in zip(super().predict(structures), structures, strict=True)
        ]

    def _shares(self, structures: Sequence[Atoms]) -> list[Prediction]:
        self.current = structures
        time.sleep(0.02)
        return super().predict(self.current)

    def _remembers(self, structures: Sequence[Atoms]) -> list[Prediction]:
        said = super().predict(structures)
        drift = 1e-2 if len(structures) == 1 and self.memory and self.memory[-1] not in (said[0].energy,) else 0.0
        self.memory.extend(one.energy for one in said)
        return [replace(one, energy=one.energy + drift) for one in said]


class WithFault(SoundPotential):
    """A potential whose predictors have one fault."""

    fault: ClassVar[str]

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        return Watched(ToyModel.load(model), self.fault)


# Samplers --------------------------------------------------------------------------------------------------


class SoundSampler(RandomDisplacement):
    """Independent displacements."""

    name: ClassVar[str] = "random-displacement"
    habit: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        self.habit()
        return super().sample(walker, forces, task, monitor)


class NeverAsks(SoundSampler):
    """It has no use for a monitor."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        return super().sample(walker, forces, task, lambda step, atoms: None)


class NeverStops(SoundSampler):
    """It asks, and goes on."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        def ask(step: int, atoms: Atoms) -> None:
            monitor(step, atoms)

        return super().sample(walker, forces, task, ask)


class MiscountsSteps(SoundSampler):
    """It counts for the monitor from zero."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        return super().sample(walker, forces, task, lambda step, atoms: monitor(step - 1, atoms))


class NeverMoves(SoundSampler):
    """It shakes the cell of a structure whose atoms stay."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        return SoundSampler(amplitude=0.0).sample(walker, forces, task, monitor)


class LosesCharge(SoundSampler):
    """Its structures are made anew, of atoms alone."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        segment = super().sample(walker, forces, task, monitor)
        bare = segment.walker.structure.copy()
        bare.info = {}
        return replace(segment, walker=replace(segment.walker, structure=bare))


class LetsGo(SoundSampler):
    """It knows of no constraints."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        fixed, free = np.flatnonzero(fixed_atoms(walker.structure)), unconstrained(walker.structure)
        segment = super().sample(replace(walker, structure=free), forces, task, monitor)
        fix(segment.walker.structure, fixed)
        return segment


class WrapsSampler(SoundSampler):
    """Its walkers end inside the cell."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        segment = super().sample(walker, forces, task, monitor)
        if np.abs(walker.structure.get_scaled_positions(wrap=False)).max() > 1.4:
            segment.walker.structure.wrap()
        return segment


class TakesAnyState(SoundSampler):
    """A state that it cannot read is as good as none."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        try:
            return super().sample(walker, forces, task, monitor)
        except StructureError:
            return super().sample(replace(walker, state=None), forces, task, monitor)


class MovesTheWalker(SoundSampler):
    """It notes in the walker that it has been there."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        segment = super().sample(walker, forces, task, monitor)
        walker.structure.info["visited"] = True
        return segment


class SharesSampler(SoundSampler):
    """One stream of random numbers for all walkers."""

    seeds: ClassVar[list[int]] = []

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        self.seeds.append(task.seed)
        time.sleep(0.05)
        return super().sample(walker, forces, replace(task, seed=self.seeds[-1]), monitor)
