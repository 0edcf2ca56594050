"""Checks of labels, committees, trainings, and of components' own properties."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from psiflow_core.checks import closest_pair
from psiflow_core.components import Component, Executor, Prediction, Resources, Sampler, TrainingResult
from psiflow_core.components.checking import (
    an,
    blamed,
    count,
    in_the_driver,
    number,
    numbers,
    reading,
    told,
    wrong,
)
from psiflow_core.components.prediction import checked_physics
from psiflow_core.components.predictor import Answering, copies
from psiflow_core.errors import MembersAlike, ReferenceFailed
from psiflow_core.structures import Label

ERRORS = ("force_rmse", "force_mae", "energy_rmse", "energy_mae")
"""Errors that every training has to report."""

RECORD = ("step", "loss")
"""Keys of every record in a training's history."""

NEIGHBOURS = 3.0
"""The range of interactions assumed for a predictor without a cutoff. [Å]"""


# References ------------------------------------------------------------------------------------------------


def label(found: object, structure: Atoms, who: str) -> Label:
    """The checked label of a reference for a structure.

    Raises:
        WrongAnswer: it is not a label of this structure.
        ReferenceFailed: its numbers are not finite.
    """
    with reading(who):
        checked = Label(*checked_physics(an(found, Label, who), structure, who))
    if not all(
        np.isfinite(part).all() for part in (checked.energy, checked.forces, checked.stress) if part is not None
    ):
        raise ReferenceFailed(f"{who} returned an energy, forces or a stress that are not finite")
    return checked


# Predictors ------------------------------------------------------------------------------------------------


def disagreeing(members: Sequence[Answering], seen: Sequence[tuple[Atoms, Prediction]]) -> None:
    """Check that the members of a committee are different: their forces differ in at least one bit somewhere.

    Structures without neighbours are skipped, because every model gives zero forces there.

    Args:
        seen: for each walker, the structure with the largest disagreement, and its prediction.

    Raises:
        MembersAlike: their predictions are equal for every structure.
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


# Trainings -------------------------------------------------------------------------------------------------


def exported(target: Path, who: str) -> Path:
    """The exported file of a potential; raises `WrongAnswer`."""
    if not target.exists():
        raise wrong(who, f"did not write {target}, which it was asked to export to")
    return target


def training(found: object, folder: Path, who: str) -> TrainingResult:
    """The checked result of a training in a folder.

    Raises:
        WrongAnswer: its model is not a file in the folder, or its errors or history are incomplete or not numbers.
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
    """Call a component's check; its errors pass through, and a returned value is a `WrongAnswer`."""
    refuse: Callable[[Sequence[Atoms]], object] = component.check
    with blamed(who):
        found = refuse(copies(structures))
    if found is not None:
        raise wrong(who, f"returned {told(found)} from check; it has to raise an error to refuse, and return None")


def temperature(sampler: Sampler, who: str) -> float | None:
    """The target temperature of a sampler [K]; raises `WrongAnswer`."""
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
    """The number of simultaneous tasks of an executor; raises `WrongAnswer`."""
    with in_the_driver(who):
        number_of = count(executor.slots(), "slots", who)
    if number_of < 1:
        raise wrong(who, "returned 0 slots; it has to run at least one task")
    return number_of


def resources(executor: Executor, who: str) -> Resources:
    """The limits of a task on an executor; raises `WrongAnswer`."""
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
