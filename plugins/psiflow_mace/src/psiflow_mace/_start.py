"""The start of a training: a new network, a parent, or a foundation model."""

from __future__ import annotations

import hashlib

import numpy as np
from ase.data import atomic_numbers

from psiflow_core.components import TrainingTask
from psiflow_core.errors import TrainingFailed
from psiflow_core.structures import Plain, canonical, label_of, sha256, species, to_plain
from psiflow_mace import _foundation
from psiflow_mace._engine import torch
from psiflow_mace._graphs import GraphBuilder
from psiflow_mace._model import FOUNDATION_SHAPE, SHAPE, Model, architecture, build
from psiflow_mace.options import MaceOptions


def model(options: MaceOptions, task: TrainingTask) -> Model:
    """The model before the first gradient step.

    Raises:
        TrainingFailed: there is no training data, a species is not covered, or the parent does not fit.
    """
    if not task.training:
        raise TrainingFailed("there is no structure to train on; label some first")
    if task.parent is not None:
        return _from_parent(options, task)
    _require(task, list(task.atomic_energies), "atomic_energies has", "add the energy of the isolated atom")
    if options.foundation_model is not None:
        return _foundation.model(options, task)
    return _from_scratch(options, task)


def is_warm(options: MaceOptions, task: TrainingTask) -> bool:
    """Whether a training starts from trained weights."""
    return task.parent is not None or options.foundation_model is not None


def fingerprint(options: MaceOptions, task: TrainingTask) -> str:
    """A hash over everything that must be equal for a checkpoint to be continued."""
    hasher = hashlib.sha256(canonical({"options": options.options(), "seed": task.seed, "steps": task.steps}))
    hasher.update(canonical({"energies": task.atomic_energies, "torch": torch.__version__}))
    for structures in (task.training, task.validation):
        hasher.update(sha256([to_plain(atoms) for atoms in structures]).encode())
    if task.parent is not None:
        hasher.update(hashlib.sha256(task.parent.read_bytes()).digest())
    return hasher.hexdigest()


def shape_of(options: MaceOptions) -> Plain:
    """The options that parent and child must share."""
    chosen = options.options()
    return {name: chosen[name] for name in (SHAPE if options.foundation_model is None else FOUNDATION_SHAPE)}


def _from_parent(options: MaceOptions, task: TrainingTask) -> Model:
    assert task.parent is not None
    parent = Model.open(task.parent)
    wanted = shape_of(options)
    differing = [
        f"{name}={parent.shape.get(name)!r} there, {wanted.get(name)!r} here"
        for name in sorted(wanted.keys() | parent.shape.keys())
        if wanted.get(name) != parent.shape.get(name)
    ]
    if differing:
        raise TrainingFailed(
            f"the parent {task.parent.name} has another architecture ({'; '.join(differing)}): "
            "give the same options, or train from scratch"
        )
    _require(task, list(parent.atomic_energies), "the parent model knows", "train from scratch to add it")
    return parent


def _from_scratch(options: MaceOptions, task: TrainingTask) -> Model:
    numbers = sorted(atomic_numbers[symbol] for symbol in task.atomic_energies)
    scale, neighbours = _statistics(task, options.r_max, numbers)
    plan = architecture(options, numbers, neighbours, scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        network = build(plan, options.dtype)
    energies = {symbol: float(energy) for symbol, energy in task.atomic_energies.items()}
    return Model(plan, energies, options.dtype, shape_of(options), network.state_dict())


def _statistics(task: TrainingTask, cutoff: float, numbers: list[int]) -> tuple[float, float]:
    """RMS force component [eV/Å] and mean number of neighbours, computed as in `mace_run_train`."""
    builder = GraphBuilder(cutoff, numbers)
    forces = np.concatenate([label_of(atoms).forces for atoms in task.training])
    counts = np.concatenate(
        [np.unique(builder.graph(atoms).edges[1], return_counts=True)[1] for atoms in task.training]
    )
    scale = float(np.sqrt(np.mean(forces**2)))
    return scale if scale > 0 else 1.0, float(counts.mean()) if len(counts) else 1.0


def _require(task: TrainingTask, known: list[str], who: str, remedy: str) -> None:
    missing = [symbol for symbol in species([*task.training, *task.validation]) if symbol not in known]
    if missing:
        raise TrainingFailed(f"{who} {', '.join(known)}, but the data also hold {', '.join(missing)}: {remedy}")
