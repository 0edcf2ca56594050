"""What holds for a potential whose training can be killed, resumed, and started from a parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.components import Prediction, Predictor, TrainingResult, TrainingTask
from psiflow_core.errors import Interrupted, StructureError, TrainingFailed
from psiflow_core.structures import Label, label_of, to_plain, with_label
from psiflow_core.testing.potential import STEPS, Asked, PotentialContract, Short
from psiflow_core.testing.traces import within

TRAIN = """
import json, sys
from pathlib import Path
from psiflow_core.components import TrainingTask
from psiflow_core.registry.plugins import registry
from psiflow_core.structures import from_plain
given = json.loads(Path(sys.argv[1]).read_text())
data = [[from_plain(atoms) for atoms in given[name]] for name in ("training", "validation")]
task = TrainingTask(*data, given["energies"], seed=given["seed"], folder=Path(given["folder"]), steps=given["steps"])
registry().find("potential", given["name"]).component.parse(given["options"]).train(task)
"""

FOREIGN = "Xe"
"""An element that is in no data set here."""

CUTS = ("emptied", "halved", "flipped", "replaced")
"""What may happen to a file."""


class TrainablePotentialContract(PotentialContract):
    """Besides: what an earlier attempt left is used exactly, or not at all, and a child keeps what its parent has."""

    another_shape: ClassVar[Mapping[str, Any]] = {}
    """Options of a network whose weights do not fit those of `options`."""
    exactness: ClassVar[float] = 1e-6
    """Between the predictions of an interrupted and an uninterrupted training. [eV, eV/Å]"""

    @pytest.fixture
    def left(self, task: TrainingTask, tmp_path: Path) -> TrainingTask:
        """A task that an earlier attempt has begun: its folder has what that left after two steps."""
        begun = replace(task, steps=STEPS, folder=tmp_path / "left")
        begun.folder.mkdir()
        try:
            self.build().train(replace(begun, interrupted=Asked(2)))
        except Interrupted:
            return begun
        pytest.fail("a training that has to stop does not raise Interrupted")

    def test_a_killed_training_goes_on_to_the_same_model(
        self, trained: TrainingResult, task: TrainingTask, predictor: Predictor, tmp_path: Path
    ) -> None:
        """It is killed in another process as soon as it has left a file."""
        folder = tmp_path / "attempt"
        folder.mkdir()
        given = {
            "training": [to_plain(atoms) for atoms in task.training],
            "validation": [to_plain(atoms) for atoms in task.validation],
            "energies": task.atomic_energies,
            "seed": task.seed,
            "steps": task.steps,
            "folder": str(folder),
            "name": self.component.name,
            "options": dict(self.options),
        }
        (tmp_path / "task.json").write_text(json.dumps(given))
        with within(self.patience, "a training that is killed"):
            with subprocess.Popen([sys.executable, "-c", TRAIN, str(tmp_path / "task.json")]) as process:
                while not any(folder.iterdir()) and process.poll() is None:
                    time.sleep(0.005)
                os.kill(process.pid, signal.SIGKILL)
            (folder / trained.model.relative_to(task.folder)).unlink(missing_ok=True)
            again = self.build().train(replace(task, folder=folder))
        assert again.steps == trained.steps
        assert _apart(self.load(again), predictor, task) < self.exactness

    @pytest.mark.parametrize("cut", CUTS)
    def test_a_damaged_file_of_an_earlier_attempt_costs_its_steps_only(
        self, short: Short, left: TrainingTask, cut: str
    ) -> None:
        for file in left.folder.rglob("*"):
            if file.is_file():
                file.write_bytes(_cut(file.read_bytes(), cut))
        again = self.build().train(left)
        assert again.steps == STEPS
        assert _between(self._said(again, left), short.said[0]) < self.exactness

    def test_the_attempt_of_another_task_is_not_continued(
        self, short: Short, left: TrainingTask, tmp_path: Path
    ) -> None:
        other = self.build().train(replace(left, seed=left.seed + 1))
        (tmp_path / "fresh").mkdir()
        fresh = self.build().train(replace(left, seed=left.seed + 1, folder=tmp_path / "fresh"))
        assert _between(self._said(other, left), self._said(fresh, left)) < self.exactness

    def test_trainings_in_threads_do_not_disturb_each_other(
        self, short: Short, task: TrainingTask, tmp_path: Path
    ) -> None:
        tasks = [replace(task, steps=STEPS, seed=task.seed + k % 2, folder=tmp_path / str(k)) for k in range(4)]
        for one in tasks:
            one.folder.mkdir()
        with ThreadPoolExecutor(2) as threads:
            results = list(threads.map(lambda one: self.build().train(one), tasks))
        said = [self._said(result, task) for result in results]
        assert _between(said[0], short.said[0]) < self.exactness
        assert _between(said[0], said[2]) < self.exactness
        assert _between(said[1], said[3]) < self.exactness

    def test_a_child_keeps_the_atomic_energies_of_its_parent(
        self, trained: TrainingResult, predictor: Predictor, task: TrainingTask, tmp_path: Path
    ) -> None:
        other = {symbol: energy + 1.0 for symbol, energy in task.atomic_energies.items()}
        child = self.load(self._child(trained, task, tmp_path, atomic_energies=other))
        alone = [Atoms(symbol) for symbol in task.atomic_energies]
        for mine, parents in zip(child.predict(alone), predictor.predict(alone), strict=True):
            assert mine.energy == pytest.approx(parents.energy, abs=self.energy_tolerance)

    def test_a_child_keeps_the_scale_of_its_parent(
        self, trained: TrainingResult, predictor: Predictor, task: TrainingTask, tmp_path: Path
    ) -> None:
        """Labels that are a thousandth are not learnt in one step; a scale taken from them would be seen at once."""
        small = [with_label(atoms, _scaled(label_of(atoms), 1e-3)) for atoms in task.training]
        child = self.load(self._child(trained, task, tmp_path, training=small, validation=[]))
        mine, parents = (one.predict(_bare(task)) for one in (child, predictor))
        assert _between(mine, parents) < 0.2 * max(float(np.abs(one.forces).max()) for one in parents)

    def test_a_parent_of_another_shape_is_refused(
        self, trained: TrainingResult, task: TrainingTask, tmp_path: Path
    ) -> None:
        if not self.another_shape:
            pytest.skip("another_shape is not given")
        other = self.component.parse({**self.options, **self.another_shape})
        with pytest.raises(TrainingFailed, match="|".join(self.another_shape)):
            other.train(replace(task, parent=trained.model, steps=1, folder=tmp_path))

    def test_an_element_that_the_parent_lacks_is_named(
        self, trained: TrainingResult, task: TrainingTask, tmp_path: Path
    ) -> None:
        with pytest.raises(TrainingFailed, match=FOREIGN):
            self._child(trained, task, tmp_path, training=[*task.training, _foreign(task)])

    def test_an_element_without_an_atomic_energy_is_named(self, task: TrainingTask, tmp_path: Path) -> None:
        with pytest.raises(TrainingFailed, match=FOREIGN):
            self.build().train(replace(task, training=[*task.training, _foreign(task)], folder=tmp_path))

    def test_an_element_that_the_model_does_not_know_is_named(self, predictor: Predictor) -> None:
        with pytest.raises(StructureError, match=FOREIGN):
            predictor.predict([Atoms(FOREIGN)])

    def _child(self, trained: TrainingResult, task: TrainingTask, folder: Path, **changes: Any) -> TrainingResult:
        given: dict[str, Any] = {"parent": trained.model, "steps": 1, "folder": folder, **changes}
        result: TrainingResult = self.build().train(replace(task, **given))
        return result

    def _said(self, result: TrainingResult, task: TrainingTask) -> list[Prediction]:
        return self.load(result).predict([atoms.copy() for atoms in task.validation])


def _bare(task: TrainingTask) -> list[Atoms]:
    return [atoms.copy() for atoms in task.validation]


def _apart(one: Predictor, other: Predictor, task: TrainingTask) -> float:
    return _between(one.predict(_bare(task)), other.predict(_bare(task)))


def _between(some: list[Prediction], others: list[Prediction]) -> float:
    """The largest difference of energies and force components. [eV, eV/Å]"""
    pairs = list(zip(some, others, strict=True))
    energies = max(abs(a.energy - b.energy) for a, b in pairs)
    return max(energies, *(float(np.abs(a.forces - b.forces).max()) for a, b in pairs))


def _cut(content: bytes, cut: str) -> bytes:
    middle = len(content) // 2
    if cut == "flipped":
        return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    return {"emptied": b"", "halved": content[:middle], "replaced": b"not a checkpoint"}[cut]


def _scaled(label: Label, factor: float) -> Label:
    stress = None if label.stress is None else factor * label.stress
    return replace(label, energy=factor * label.energy, forces=factor * label.forces, stress=stress)


def _foreign(task: TrainingTask) -> Atoms:
    """A labelled structure with a new element."""
    first = task.training[0]
    atoms = first.copy()
    atoms.symbols[0] = FOREIGN
    return with_label(atoms, label_of(first))
