"""MACE, NequIP and Allegro, each trained for the same wall time on the same structures: errors, and time to predict.

    python benchmarks/architectures.py TRAIN.xyz TEST.xyz ATOMS.xyz [--structures 200] [--seconds 300] [--test 1000]

Each trains in the first environment that has its plugin, on one thread, alone. A tenth of the structures validate.
How many steps fit the time comes from two short trainings, by the processor's clock, which is the wall's where nothing
else runs; what it really took, by both, is in the table, which prints after the last. `predict` is timed on molecules
of the test set, one by one and 32 in a batch, best of three.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

import psiflow_core as psiflow
from psiflow_core.components import Potential, TrainingTask
from psiflow_core.environments.environment import choose
from psiflow_core.potentials.metrics import errors
from psiflow_core.registry.plugins import build

POTENTIALS: dict[str, dict[str, Any]] = {
    "mace": {"num_channels": 16, "max_ell": 2, "r_max": 5.0, "batch_size": 4, "learning_rate": 0.02},
    "nequip": {"num_features": 16, "l_max": 2, "r_max": 5.0, "batch_size": 4, "learning_rate": 0.02},
    "allegro": {"r_max": 5.0, "batch_size": 4, "learning_rate": 0.02},
}
"""Small networks: at a small budget many steps are worth more than many features."""

SHORT = (40, 240)
"""Steps of the trainings that tell how long a step takes."""


def main() -> None:
    arguments = parse()
    if arguments.run:
        print(json.dumps(measure(arguments.run, arguments)))
        return
    rows = {}
    for name, options in POTENTIALS.items():
        launch = choose([psiflow.potential(name, **options)]).launch
        words = [*launch, __file__, *sys.argv[1:], "--run", name]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **ONE_THREAD})
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    print(
        f"{'':8}{'steps':>7}{'CPU [s]':>9}{'wall [s]':>10}{'force RMSE':>12}{'MAE [meV/Å]':>13}{'energy RMSE':>13}"
        f"{'MAE [meV/atom]':>16}{'predict 1':>11}{'32 [ms each]':>14}"
    )
    for name, row in rows.items():
        print(
            f"{name:8}{row['steps']:7d}{row['cpu']:9.0f}{row['wall']:10.0f}{1e3 * row['force_rmse']:12.1f}"
            f"{1e3 * row['force_mae']:13.1f}{1e3 * row['energy_rmse']:13.2f}{1e3 * row['energy_mae']:16.2f}"
            f"{row['single']:11.2f}{row['batched']:14.2f}"
        )


ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test_set", "atoms"):
        parser.add_argument(name, type=Path)
    for name, default in {"structures": 200, "seconds": 300, "test": 1000, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one potential in this interpreter, and look at what it has learned."""
    structures = read(arguments.train, ":")
    order = np.random.default_rng(arguments.seed).permutation(len(structures))[: arguments.structures]
    held = len(order) // 10
    parts = [structures[k] for k in order[held:]], [structures[k] for k in order[:held]]
    energies = {atom.symbols[0]: atom.get_potential_energy() for atom in read(arguments.atoms, ":")}
    present = {symbol for part in parts for atoms in part for symbol in atoms.symbols}
    energies = {symbol: energy for symbol, energy in energies.items() if symbol in present}
    potential = build(psiflow.potential(name, **POTENTIALS[name]))
    assert isinstance(potential, Potential)

    def train(steps: int) -> tuple[Any, dict[str, float]]:
        with tempfile.TemporaryDirectory() as folder:
            start, wall = time.process_time(), time.perf_counter()
            task = TrainingTask(*parts, energies, arguments.seed, Path(folder), steps=steps)
            predictor = potential.load(potential.train(task).model)
            return predictor, {"cpu": time.process_time() - start, "wall": time.perf_counter() - wall}

    train(SHORT[0])  # imports and first calls
    short, long = (train(steps)[1]["cpu"] for steps in SHORT)
    each = (long - short) / (SHORT[1] - SHORT[0])
    steps = int(SHORT[0] + (arguments.seconds - short) / each)
    predictor, took = train(steps)
    test = read(arguments.test_set, f":{arguments.test}")
    answers = [
        answer.to_plain() for start in range(0, len(test), 50) for answer in predictor.predict(test[start : start + 50])
    ]
    found = errors(test, answers)
    times = {"single": per_structure(predictor, test, 1), "batched": per_structure(predictor, test, 32)}
    return {"steps": steps, **took, **vars(found), **times}


def per_structure(predictor: Any, test: list[Atoms], size: int) -> float:
    """Wall time of a prediction for each structure of a batch. [ms]"""
    batches = [test[start : start + size] for start in range(0, 4 * size, size)]
    predictor.predict(batches[0])
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for batch in batches:
            predictor.predict(batch)
        times.append((time.perf_counter() - start) / (len(batches) * size))
    return 1e3 * min(times)


if __name__ == "__main__":
    main()
