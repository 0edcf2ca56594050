"""The start of a training: a new network, or a parent."""

from __future__ import annotations

import hashlib

import numpy as np
from ase.data import atomic_numbers

from psiflow_core.components import TrainingTask
from psiflow_core.errors import TrainingFailed
from psiflow_core.structures import Plain, canonical, label_of, sha256, species, to_plain
from psiflow_nequip._engine import torch
from psiflow_nequip._graphs import GraphBuilder
from psiflow_nequip._model import Model, architecture, build
from psiflow_nequip.options import EquivariantOptions


def model(options: EquivariantOptions, task: TrainingTask) -> Model:
    """The model before the first gradient step.

    Raises:
        TrainingFailed: there is no training data, a species is not covered, or the parent does not fit.
    """
    if not task.training:
        raise TrainingFailed("there is no structure to train on; label some first")
    if task.parent is not None:
        return _from_parent(options, task)
    _require(task, list(task.atomic_energies), "atomic_energies has", "add the energy of the isolated atom")
    return _from_scratch(options, task)


def fingerprint(options: EquivariantOptions, task: TrainingTask) -> str:
    """A hash over everything that must be equal for a checkpoint to be continued."""
    hasher = hashlib.sha256(canonical({"potential": options.name, "options": options.options()}))
    hasher.update(canonical({"seed": task.seed, "steps": task.steps, "torch": torch.__version__}))
    hasher.update(canonical({"energies": task.atomic_energies}))
    for structures in (task.training, task.validation):
        hasher.update(sha256([to_plain(atoms) for atoms in structures]).encode())
    if task.parent is not None:
        hasher.update(hashlib.sha256(task.parent.read_bytes()).digest())
    return hasher.hexdigest()


def shape_of(options: EquivariantOptions) -> Plain:
    """The options that parent and child must share."""
    chosen = options.options()
    return {name: chosen[name] for name in options.shape}


def _from_parent(options: EquivariantOptions, task: TrainingTask) -> Model:
    assert task.parent is not None
    parent = Model.open(task.parent, options.name)
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
    _require(task, parent.symbols, "the parent model knows", "train from scratch to add it")
    return parent


def _from_scratch(options: EquivariantOptions, task: TrainingTask) -> Model:
    symbols = sorted(task.atomic_energies, key=lambda symbol: atomic_numbers[symbol])
    energies = {symbol: float(task.atomic_energies[symbol]) for symbol in symbols}
    scale, neighbours = _statistics(task, options.r_max, symbols)
    plan = architecture(options, energies, neighbours, scale)
    network = build(options.name, plan, options.dtype, task.seed)
    return Model(options.name, plan, options.dtype, shape_of(options), network.state_dict())


def _statistics(task: TrainingTask, cutoff: float, symbols: list[str]) -> tuple[float, float]:
    """RMS force component [eV/Å] and mean number of neighbours, computed as in `nequip-train`."""
    builder = GraphBuilder(cutoff, symbols)
    forces = np.concatenate([label_of(atoms).forces for atoms in task.training])
    edges = sum(builder.graph(atoms).edges.shape[1] for atoms in task.training)
    scale = float(np.sqrt(np.mean(forces**2)))
    return scale if scale > 0 else 1.0, edges / len(forces) if edges else 1.0


def _require(task: TrainingTask, known: list[str], who: str, remedy: str) -> None:
    missing = [symbol for symbol in species([*task.training, *task.validation]) if symbol not in known]
    if missing:
        raise TrainingFailed(f"{who} {', '.join(known)}, but the data also hold {', '.join(missing)}: {remedy}")
