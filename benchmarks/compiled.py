"""Predictions and gradient steps with compiled code, beside the same without it.

    python benchmarks/compiled.py mace
    ENVIRONMENT/python benchmarks/compiled.py nequip allegro

Default options, acetaldehyde (7 atoms) displaced at random, on one core; times are medians over alternating rounds. The
step is the loss of eight structures and its gradient. Compiled code that is missing is made first, in minutes; the time
for that is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from psiflow_torch.examples import examples
from psiflow_torch.gradients import Gradients
from psiflow_torch.potential import TorchPotential
from psiflow_torch.start import start

import psiflow_core as psiflow
from psiflow_core.components import TrainingTask
from psiflow_core.registry.plugins import build
from psiflow_core.structures import Label, with_label

ENERGIES = {"H": -13.6, "C": -1030.0, "O": -2040.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("potentials", nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("potential             network [ms]   compiled [ms]   ratio   made in [s]")
    for name in arguments.potentials:
        for what, (eager, compiled, made) in measured(name, arguments.rounds).items():
            print(f"{name:8s} {what:11s} {eager:13.2f} {compiled:15.2f} {eager / compiled:7.2f} {made:13.1f}")


def measured(name: str, rounds: int) -> dict[str, tuple[float, float, float]]:
    """By what is done: times without and with code [ms], and the time to make the code. [s]"""
    ways: dict[str, TorchPotential] = {
        choice: build(psiflow.potential(name, compile=choice)) for choice in ("never", "always")
    }
    with TemporaryDirectory() as folder:
        task = TrainingTask(displaced(8, labelled=True), [], ENERGIES, seed=0, folder=Path(folder), steps=1)
        model = ways["never"].train(task).model
        loaded, made = {}, {}
        for choice, potential in ways.items():
            begun = time.perf_counter()
            loaded[choice] = potential.load(model)
            made[choice] = time.perf_counter() - begun
        found = {}
        for count in (1, 8, 32):
            structures = displaced(count)
            runs = {choice: partial(predictor.predict, structures) for choice, predictor in loaded.items()}
            found[f"predict {count}"] = (*timed(runs, rounds), made["always"])
        steps, taken = {}, {}
        for choice, potential in ways.items():
            begun = time.perf_counter()
            steps[choice] = step(potential, task)
            taken[choice] = time.perf_counter() - begun
        return {**found, "step of 8": (*timed(steps, rounds), taken["always"])}


def step(potential: TorchPotential, task: TrainingTask) -> Callable[[], object]:
    """Sets the gradient of the loss of all structures."""
    architecture, device = potential.architecture(), torch.device("cpu")
    begin, _ = start(potential, architecture, task, potential.trained)
    network = architecture.network(begin).train()
    gradients = Gradients(potential, architecture, begin, network, device, 8)
    chosen = examples(task.training, begin, architecture.offsets(begin), "training")
    return lambda: gradients.set(chosen)


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> tuple[float, float]:
    """Medians of alternating rounds. [ms]"""
    for run in ways.values():
        for _ in range(3):
            run()
    times = np.array([[seconds(ways[choice]) for choice in ("never", "always")] for _ in range(rounds)])
    without, with_code = 1e3 * np.median(times, axis=0)
    return float(without), float(with_code)


def seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def displaced(count: int, labelled: bool = False) -> list[Atoms]:
    rng = np.random.default_rng(count)
    made: Sequence[Atoms] = [molecule("CH3CHO") for _ in range(count)]
    for atoms in made:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    if not labelled:
        return list(made)
    isolated = sum(ENERGIES[symbol] for symbol in made[0].get_chemical_symbols())
    return [with_label(atoms, Label(isolated - 30.0, rng.normal(size=atoms.positions.shape))) for atoms in made]


if __name__ == "__main__":
    main()
