"""Components that break their contracts, each in the way that its options name, until there is a file `mended`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms

from psiflow_core.components import (
    LabelTask,
    Monitor,
    Potential,
    Prediction,
    Predictor,
    Reference,
    Sampler,
    SamplingTask,
    Segment,
    TrainingResult,
    TrainingTask,
    Walker,
)
from psiflow_core.structures import Label
from psiflow_toys.potential import ToyPotential
from psiflow_toys.reference import ToyReference

NAN = float("nan")


def leave(message: str) -> Any:
    """End the interpreter, as a plugin does that was a script once."""
    print(message, file=sys.stderr)
    sys.exit(message)


def moved(structure: Atoms, by: float = 1.0) -> None:
    structure.positions += by


LABELS: dict[str, Callable[[Label, Atoms], Any]] = {
    "nothing": lambda label, atoms: None,
    "a dictionary": lambda label, atoms: label.to_plain(),
    "a full stress": lambda label, atoms: replace(label, stress=np.zeros((3, 3))),
    "five stresses": lambda label, atoms: replace(label, stress=np.zeros(5)),
    "a stress of a molecule": lambda label, atoms: replace(label, stress=np.zeros(6)),
    "complex forces": lambda label, atoms: replace(label, forces=label.forces + 0j),
    "forces across": lambda label, atoms: replace(label, forces=label.forces[:2].T),
    "forces of too few atoms": lambda label, atoms: replace(label, forces=label.forces[:-1]),
    "no forces": lambda label, atoms: replace(label, forces=cast(Any, None)),
    "ragged forces": lambda label, atoms: replace(label, forces=cast(Any, [[0.0], [0.0, 1.0], []])),
    "text for an energy": lambda label, atoms: replace(label, energy=cast(Any, "-1.0")),
    "energies": lambda label, atoms: replace(label, energy=cast(Any, np.array([label.energy]))),
    "no number": lambda label, atoms: replace(label, energy=NAN),
    "no number for a force": lambda label, atoms: replace(label, forces=label.forces * NAN),
    "an exit": lambda label, atoms: leave("the licence has run out"),
    "a fork": lambda label, atoms: (label, os.fork())[0],
    "single precision": lambda label, atoms: replace(
        label, energy=cast(Any, np.float32(label.energy)), forces=cast(Any, label.forces.astype(np.float32))
    ),
    "lists": lambda label, atoms: replace(label, forces=cast(Any, label.forces.tolist())),
}
"""What a reference returns instead of its label."""

PREDICTIONS: dict[str, Callable[[list[Prediction]], Any]] = {
    "nothing": lambda said: None,
    "forces across": lambda said: [replace(one, forces=one.forces[:2].T) for one in said],
    "too few": lambda said: said[:-1],
    "too many": lambda said: said * 2,
    "one": lambda said: said[0],
    "dictionaries": lambda said: [one.to_plain() for one in said],
    "a deviation of components": lambda said: [replace(one, deviation=one.forces) for one in said],
    "complex forces": lambda said: [replace(one, forces=one.forces + 0j) for one in said],
    "a stress of a molecule": lambda said: [replace(one, stress=np.zeros(6)) for one in said],
    "energies": lambda said: [replace(one, energy=cast(Any, np.array([one.energy]))) for one in said],
    "a generator": lambda said: (one for one in said),
    "single precision": lambda said: [replace(one, forces=cast(Any, one.forces.astype("f4"))) for one in said],
}
"""What a predictor returns instead of its predictions."""

TRAININGS: dict[str, Callable[[TrainingResult, TrainingTask], Any]] = {
    "no result": lambda result, task: result.model,
    "no model": lambda result, task: replace(result, model=task.folder / "missing"),
    "a model elsewhere": lambda result, task: replace(
        result, model=Path(result.model.rename(task.folder.parent / "m"))
    ),
    "no errors": lambda result, task: replace(result, errors={}),
    "an error that is no number": lambda result, task: replace(result, errors=result.errors | {"force_mae": NAN}),
    "a history of text": lambda result, task: replace(result, history=cast(Any, ["step 1"])),
    "a history without steps": lambda result, task: replace(result, history=[{"loss": 1.0}]),
    "a loss that is no number": lambda result, task: replace(result, history=[{"step": 1.0, "loss": NAN}]),
    "steps in parts": lambda result, task: replace(result, steps=cast(Any, 1.5)),
    "an exit": lambda result, task: leave("no GPU, no training"),
    "numpy's numbers": lambda result, task: replace(
        result,
        errors={name: cast(Any, np.float32(value)) for name, value in result.errors.items()},
        steps=cast(Any, np.int64(result.steps)),
        history=[{"step": cast(Any, np.int64(1)), "loss": cast(Any, np.float64(0.5))}],
    ),
}
"""What a training returns instead of its result."""


def other(segment: Segment, change: Callable[[Atoms], Atoms | None]) -> Segment:
    """The segment, ending in a structure that was changed."""
    structure = segment.walker.structure.copy()
    found = change(structure)
    return replace(segment, walker=replace(segment.walker, structure=structure if found is None else found))


def transmuted(atoms: Atoms) -> None:
    atoms.numbers[0] = 16


SEGMENTS: dict[str, Callable[[Segment], Any]] = {
    "nothing": lambda segment: None,
    "a structure": lambda segment: segment.walker.structure,
    "fewer atoms": lambda segment: other(segment, lambda atoms: atoms[:-1]),
    "more atoms": lambda segment: other(segment, lambda atoms: atoms + Atoms("H")),
    "atoms in another order": lambda segment: other(segment, lambda atoms: atoms[::-1]),
    "other atoms": lambda segment: other(segment, transmuted),
    "another cell": lambda segment: other(segment, lambda atoms: atoms.set_cell([9, 9, 9])),
    "periodicity": lambda segment: other(segment, lambda atoms: atoms.set_pbc(True)),
    "no info": lambda segment: other(segment, lambda atoms: atoms.info.clear()),
    "another charge": lambda segment: other(segment, lambda atoms: atoms.info.update(charge=2)),
    "other masses": lambda segment: other(segment, lambda atoms: atoms.set_masses([1.0] * len(atoms))),
    "constraints": lambda segment: other(segment, lambda atoms: atoms.set_constraint(FixAtoms([0]))),
    "no number": lambda segment: other(segment, lambda atoms: moved(atoms, NAN)),
    "no walker": lambda segment: replace(segment, walker=cast(Any, segment.walker.structure)),
    "a state that is text": lambda segment: replace(segment, walker=replace(segment.walker, state=cast(Any, "{}"))),
    "a walker that took no step": lambda segment: replace(segment, walker=replace(segment.walker, step=0)),
    "too many steps": lambda segment: replace(segment, steps=segment.steps + 1),
    "negative steps": lambda segment: replace(segment, steps=-1),
    "a stop that nobody asked for": lambda segment: replace(segment, stopped="tired"),
    "other frames": lambda segment: replace(segment, frames=[Atoms("O2")]),
    "an average that is no number": lambda segment: replace(segment, averages={"temperature": NAN}),
    "numpy's numbers": lambda segment: replace(
        segment, steps=cast(Any, np.int64(segment.steps)), averages={"temperature": cast(Any, np.float32(300.0))}
    ),
}
"""What a sampler returns instead of its segment."""


class FaithlessReference(Reference):
    """The toy reference, and what comes of it."""

    name: ClassVar[str] = "faithless"

    how: str = "lists"
    """Which of `LABELS`; or `moves the atoms`, `writes a file`, `prints`."""
    mended: str = ""
    """A file: while there is none, what is returned is wrong."""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        label = ToyReference().label(structure, task)
        if self.mended and Path(self.mended).exists():
            return label
        if self.how == "moves the atoms":
            moved(structure)
            structure.info["spin"] = 3
            return label
        if self.how == "writes a file":
            Path("INPUT").write_text(structure.get_chemical_formula())
            return label
        if self.how == "prints":
            print(f"computing {structure.get_chemical_formula()}")
            raise RuntimeError("the engine has crashed")
        return cast(Label, LABELS[self.how](label, structure))


class CrossedForces(Calculator):  # type: ignore[misc]
    """An ASE calculator whose forces have shape (3, atoms), and an imaginary part."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = None) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((3, len(self.atoms))) + 0j}


class FaithlessPredictor(Predictor):
    """Predictions of the toy potential, and what comes of them."""

    def __init__(self, predictor: Predictor, how: str) -> None:
        self._predictor, self._how = predictor, how
        self.cutoff = predictor.cutoff

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        said = self._predictor.predict(structures)
        if self._how == "moves the atoms":
            for structure in structures:
                moved(structure)
            return said
        return cast(list[Prediction], PREDICTIONS[self._how](said))


class FaithlessPotential(Potential):
    """The toy potential, and what comes of it."""

    name: ClassVar[str] = "faithless"

    trains: str = ""
    """Which of `TRAININGS`; or `without a seed`."""
    predicts: str = ""
    """Which of `PREDICTIONS`; or `moves the atoms`."""
    mended: str = ""
    """A file: while there is none, what is returned is wrong."""

    def train(self, task: TrainingTask) -> TrainingResult:
        if self.trains == "without a seed" and not self._is_mended:
            return ToyPotential(basis=8).train(replace(task, seed=0))
        result = ToyPotential(basis=8).train(task)
        return cast(TrainingResult, TRAININGS[self.trains](result, task)) if self._breaks(self.trains) else result

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        predictor = ToyPotential().load(model, device)
        return FaithlessPredictor(predictor, self.predicts) if self._breaks(self.predicts) else predictor

    @property
    def _is_mended(self) -> bool:
        return bool(self.mended) and Path(self.mended).exists()

    def _breaks(self, how: str) -> bool:
        return bool(how) and how != "without a seed" and not self._is_mended


class FaithlessSampler(Sampler):
    """Downhill in small steps, and what comes of it."""

    name: ClassVar[str] = "faithless"

    how: str = ""
    """Which of `SEGMENTS`; or `never asks`, `asks once`, `never moves`, `goes on`, `asks about other atoms`, `raises`,
    `leaves`."""
    mended: str = ""
    """A file: while there is none, what is returned is wrong."""

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        how = "" if self.mended and Path(self.mended).exists() else self.how
        if how == "raises":
            raise ValueError("a sampler of no luck")
        if how == "leaves":
            leave("a sampler that has had enough")
        atoms, stopped, step = walker.structure, None, 0
        atoms.calc = forces
        while step < task.steps and (stopped is None or how == "goes on"):
            step += 1
            if how != "never moves":
                atoms.positions += 0.01 * atoms.get_forces(apply_constraint=False) + 1e-4
            due = how != "never asks" and (step % task.check_every == 0 or step == task.steps)
            if due and (how != "asks once" or step == task.steps):
                stopped = monitor(step, Atoms("He") if how == "asks about other atoms" else atoms)
        ended = Segment(Walker(atoms.copy(), b"", walker.step + step), step, stopped)
        return cast(Segment, SEGMENTS[how](ended)) if how in SEGMENTS else ended
