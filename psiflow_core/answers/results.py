"""Labels, predictions, features, trainings, and what components say of themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from psiflow_core.answers.values import (
    an,
    array,
    blamed,
    count,
    each,
    in_the_driver,
    number,
    numbers,
    reading,
    told,
    wrong,
)
from psiflow_core.checks import closest_pair
from psiflow_core.components import Component, Executor, Prediction, Predictor, Resources, Sampler, TrainingResult
from psiflow_core.errors import MembersAlike, ReferenceFailed
from psiflow_core.structures import Array, Label

ERRORS = ("force_rmse", "force_mae", "energy_rmse", "energy_mae")
"""What every training tells of its model."""

RECORD = ("step", "loss")
"""What every record of a training's history holds."""

NEIGHBOURS = 3.0
"""Within this distance atoms pull at each other, where a predictor does not tell its cut-off. [Å]"""


# References ------------------------------------------------------------------------------------------------


def label(found: object, structure: Atoms, who: str) -> Label:
    """The label that a reference returned for a structure.

    Raises:
        WrongAnswer: it is no label of this structure.
        ReferenceFailed: its numbers are not finite.
    """
    with reading(who):
        checked = Label(*_physics(an(found, Label, who), structure, who))
    if not all(
        np.isfinite(part).all() for part in (checked.energy, checked.forces, checked.stress) if part is not None
    ):
        raise ReferenceFailed(f"{who} returned an energy, forces or a stress that are not finite")
    return checked


def _physics(found: Any, structure: Atoms, who: str) -> tuple[float, Array, Array | None]:
    """Energy, forces and stress of a label or a prediction."""
    energy = number(found.energy, "an energy", who)
    forces = array(found.forces, (len(structure), 3), "forces", who)
    if found.stress is None:
        return energy, forces, None
    stress = array(found.stress, (6,), "a stress", who)
    if not structure.pbc.all():
        what = structure.get_chemical_formula()
        raise wrong(who, f"returned a stress for {what}, which is not periodic in all directions: it has to be None")
    return energy, forces, stress


# Predictors ------------------------------------------------------------------------------------------------


def predictions(found: object, structures: Sequence[Atoms], who: str) -> list[Prediction]:
    """The predictions that a predictor returned for structures; they need not be finite.

    Raises:
        WrongAnswer: they are not one for each structure, of its shape.
    """
    with reading(who):
        given = each(found, len(structures), "predictions", who)
        return [_prediction(an(one, Prediction, who), atoms, who) for one, atoms in zip(given, structures, strict=True)]


def _prediction(found: Prediction, structure: Atoms, who: str) -> Prediction:
    physics = _physics(found, structure, who)
    if found.deviation is None:
        return Prediction(*physics)
    return Prediction(*physics, array(found.deviation, (len(structure),), "a deviation", who))


def features(found: object, structures: Sequence[Atoms], who: str) -> list[Array]:
    """The descriptors that a predictor returned for structures.

    Raises:
        WrongAnswer: they are not finite, or not of shape (atoms, features) with one number of features.
    """
    with reading(who):
        given = each(found, len(structures), "arrays of features", who)
        width = _width(given[0]) if given else 0
        sizes = [(len(atoms), width) for atoms in structures]
        checked = [array(one, size, "features", who) for one, size in zip(given, sizes, strict=True)]
    if not all(np.isfinite(one).all() for one in checked):
        raise wrong(who, "returned features that are not finite")
    return checked


def _width(found: object) -> int:
    """Features of each atom, as far as the first array tells."""
    shape: tuple[int, ...] = getattr(found, "shape", ())
    return int(shape[1]) if len(shape) == 2 else 0


class Answering(Predictor):
    """A predictor of a plugin, given copies; its answers are checked, and what is wrong with them names the plugin."""

    def __init__(self, predictor: object, who: str) -> None:
        self.predictor: Predictor = an(predictor, Predictor, who)
        self.who = who
        with reading(who):
            self.cutoff = number(self.predictor.cutoff, "a cutoff", who)
        if not 0 <= self.cutoff < math.inf:
            raise wrong(who, f"has a cutoff of {self.cutoff} Å")

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        with blamed(self.who):
            return predictions(self.predictor.predict(_copies(structures)), structures, self.who)

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        with blamed(self.who):
            return features(self.predictor.features(_copies(structures)), structures, self.who)


def asked(predictor: Predictor, structures: Sequence[Atoms]) -> list[Prediction]:
    """What any predictor says of structures, also one of a user's script; raises `WrongAnswer`."""
    found = predictor.predict(structures)
    if isinstance(predictor, Answering):
        return found
    return predictions(found, structures, f"predictor {type(predictor).__name__}")


def disagreeing(members: Sequence[Answering], seen: Sequence[tuple[Atoms, Prediction]]) -> None:
    """That the members of a committee are not all the same: somewhere their forces differ by a bit at least.

    Atoms that have no neighbour tell nothing, for there every model gives forces of zero.

    Args:
        seen: of each walker, the structure about which the committee disagreed most, and its prediction.

    Raises:
        MembersAlike: they say the same of every structure.
    """
    spreads = [0.0 if said.deviation is None else float(np.max(said.deviation)) for _, said in seen]
    reach = max(member.cutoff for member in members) or NEIGHBOURS
    if len(members) == 1 or any(spreads) or not any(_have_neighbours(atoms, reach) for atoms, _ in seen):
        return
    who = ", ".join(dict.fromkeys(member.who for member in members))
    raise MembersAlike(
        f"{who} makes a committee whose {len(members)} members say exactly the same of every structure that was "
        "checked: its training takes no account of the seed, or a model to begin with has one member twice; once its "
        "plugin is mended, run the same again: these members are trained anew"
    )


def _have_neighbours(atoms: Atoms, reach: float) -> bool:
    return len(atoms) > 1 and closest_pair(atoms, reach) is not None


def _copies(structures: Sequence[Atoms]) -> list[Atoms]:
    return [structure.copy() for structure in structures]


# Trainings -------------------------------------------------------------------------------------------------


def exported(target: Path, who: str) -> Path:
    """The file that a potential was asked to write; raises `WrongAnswer`."""
    if not target.exists():
        raise wrong(who, f"did not write {target}, which it was asked to export to")
    return target


def training(found: object, folder: Path, who: str) -> TrainingResult:
    """The result of a training in a folder.

    Raises:
        WrongAnswer: its model is no file of the folder, or its errors or history are not numbers, or lack some.
    """
    with reading(who):
        return _training(an(found, TrainingResult, who), folder, who)


def _training(result: Any, folder: Path, who: str) -> TrainingResult:
    model = folder / an(result.model, str | Path, who)
    if not model.is_file():
        raise wrong(who, f"returned the model {model}, which is no file")
    if not model.resolve().is_relative_to(folder.resolve()):
        raise wrong(who, f"returned the model {model}, which is not inside the folder of the training, {folder}")
    history = [
        numbers(one, f"record {number} of its history", who, RECORD)
        for number, one in enumerate(an(result.history, list | tuple, who))
    ]
    errors = numbers(result.errors, "errors", who, ERRORS)
    return TrainingResult(model, count(result.steps, "steps", who), errors, history)


# Components and executors ----------------------------------------------------------------------------------


def check(component: Component, structures: Sequence[Atoms], who: str) -> None:
    """Let a component refuse structures; raises what it raises, and `WrongAnswer` where it answers instead."""
    refuse: Callable[[Sequence[Atoms]], object] = component.check
    with blamed(who):
        found = refuse(_copies(structures))
    if found is not None:
        raise wrong(who, f"returned {told(found)} from check; what it refuses it has to raise")


def temperature(sampler: Sampler, who: str) -> float | None:
    """The temperature that a sampler says to hold [K]; raises `WrongAnswer`."""
    with blamed(who):
        found = sampler.target_temperature()
    if found is None:
        return None
    with reading(who):
        kelvin = number(found, "a target temperature", who)
    if not 0 < kelvin < math.inf:
        raise wrong(who, f"returned a target temperature of {kelvin} K; without a thermostat it has to be None")
    return kelvin


def slots(executor: Executor, who: str) -> int:
    """How many tasks an executor says to run at once; raises `WrongAnswer`."""
    with in_the_driver(who):
        number_of = count(executor.slots(), "slots", who)
    if number_of < 1:
        raise wrong(who, "returned 0 slots; it has to run one task at least")
    return number_of


def resources(executor: Executor, who: str) -> Resources:
    """What an executor says that a task may use; raises `WrongAnswer`."""
    with in_the_driver(who):
        given = an(executor.resources(), Resources, who)
        names = ("memory", "wall_time", "silence")
        limits = {name: _limit(getattr(given, name), name, who) for name in names}
    return Resources(count(given.cores, "cores", who), an(given.device, str, who), **limits)


def _limit(found: object, name: str, who: str) -> float | None:
    """A limit of a task; None for no limit."""
    limit = None if found is None else number(found, name, who)
    if limit is not None and not 0 < limit < math.inf:
        raise wrong(who, f"returned {name} of {limit}; without a limit it has to be None")
    return limit
