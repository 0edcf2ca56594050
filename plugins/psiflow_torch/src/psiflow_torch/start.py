"""The start of a training: a new network, a parent, or trained weights of another origin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from ase.data import atomic_numbers

from psiflow_core.components import TrainingTask
from psiflow_core.errors import TrainingFailed
from psiflow_core.structures import canonical, label_of, sha256, species, to_plain
from psiflow_torch.architecture import Architecture, Statistics
from psiflow_torch.engine import torch
from psiflow_torch.graphs import GraphBuilder
from psiflow_torch.model import Model
from psiflow_torch.options import TorchOptions

Trained = Callable[[TrainingTask], Model | None]
"""Gives a model with trained weights from which a training without a parent starts; None for random ones."""

ROUND_OFF = 1e-6
"""An RMS force component below this is round-off, and sets no scale. [eV/Å]"""


def start(
    options: TorchOptions, architecture: Architecture, task: TrainingTask, trained: Trained
) -> tuple[Model, bool]:
    """The model before the first gradient step, and whether its weights are trained.

    Raises:
        TrainingFailed: there is no training data, a species is not covered, or the parent does not fit.
    """
    if not task.training:
        raise TrainingFailed("there is no structure to train on; label some first")
    if task.parent is not None:
        return _parent(options, task), True
    _require(task, list(task.atomic_energies), "atomic_energies has", "add the energy of the isolated atom")
    found = trained(task)
    return (_new(options, architecture, task), False) if found is None else (found, True)


def fingerprint(options: TorchOptions, task: TrainingTask) -> str:
    """A hash over everything that must be equal for a checkpoint to be continued."""
    hasher = hashlib.sha256(canonical({"potential": options.name, "options": options.options()}))
    hasher.update(canonical({"seed": task.seed, "steps": task.steps, "torch": torch.__version__}))
    hasher.update(canonical({"energies": task.atomic_energies}))
    for structures in (task.training, task.validation):
        hasher.update(sha256([to_plain(atoms) for atoms in structures]).encode())
    if task.parent is not None:
        hasher.update(hashlib.sha256(task.parent.read_bytes()).digest())
    return hasher.hexdigest()


def _parent(options: TorchOptions, task: TrainingTask) -> Model:
    assert task.parent is not None
    parent, wanted = Model.open(task.parent, options.name), options.shape
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
    _require(task, parent.symbols, "the parent model knows", "train from scratch to add it")
    return parent


def _new(options: TorchOptions, architecture: Architecture, task: TrainingTask) -> Model:
    symbols = sorted(task.atomic_energies, key=lambda symbol: atomic_numbers[symbol])
    energies = {symbol: float(task.atomic_energies[symbol]) for symbol in symbols}
    plan = architecture.plan(options, energies, _statistics(task, options.r_max, symbols))
    weights = architecture.new(plan, options.dtype, task.seed).state_dict()
    return Model(options.name, plan, energies, options.r_max, options.dtype, options.shape, weights)


def _statistics(task: TrainingTask, cutoff: float, symbols: list[str]) -> Statistics:
    builder = GraphBuilder(cutoff, symbols)
    graphs = [builder.graph(atoms) for atoms in task.training]
    forces = np.concatenate([label_of(atoms).forces for atoms in task.training])
    force = float(np.sqrt(np.mean(forces**2)))
    neighbours = np.concatenate([np.bincount(graph.edges[1], minlength=len(graph)) for graph in graphs])
    return Statistics(force if force > ROUND_OFF else 1.0, neighbours)


def _require(task: TrainingTask, known: list[str], who: str, remedy: str) -> None:
    missing = [symbol for symbol in species([*task.training, *task.validation]) if symbol not in known]
    if missing:
        raise TrainingFailed(f"{who} {', '.join(known)}, but the data also hold {', '.join(missing)}: {remedy}")
