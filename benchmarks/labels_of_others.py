"""Train potential `mace` on labels that others computed, and print the errors on their validation set.

    python benchmarks/labels_of_others.py TRAIN.xyz VALID.xyz [--steps 1500] [--channels 16] [--cutoff 5] [--rate 0.02]

Energies, forces and stresses are learned. A tenth of TRAIN chooses the weights; VALID is not looked at before
the end. Isolated atoms are not in such files: their energies are the shortest that give the mean energy of TRAIN.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read

import psiflow_core as psiflow
from psiflow_core.components import Potential, TrainingTask
from psiflow_core.potentials.metrics import errors
from psiflow_core.registry.plugins import build

QUANTITIES = (
    ("energy", "energy", 1e3, "meV/atom"),
    ("forces", "force", 1e3, "meV/Å"),
    ("stress", "stress", 1e3 / units.GPa, "MPa"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    for name, default in {"steps": 1500, "channels": 16, "batch": 1, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--energy-weight", type=float, default=1000.0)
    parser.add_argument("--stress-weight", type=float, default=100000.0)
    arguments = parser.parse_args()
    given, test = read(arguments.train, ":"), read(arguments.valid, ":")
    order = np.random.default_rng(arguments.seed).permutation(len(given))
    held = max(1, len(given) // 10)
    potential = build(
        psiflow.potential(
            "mace",
            num_channels=arguments.channels,
            r_max=arguments.cutoff,
            batch_size=arguments.batch,
            learning_rate=arguments.rate,
            energy_weight=arguments.energy_weight,
            stress_weight=arguments.stress_weight,
        )
    )
    assert isinstance(potential, Potential)
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        task = TrainingTask(
            [given[n] for n in order[held:]],
            [given[n] for n in order[:held]],
            atomic_energies(given),
            arguments.seed,
            Path(folder),
            steps=arguments.steps,
        )
        result = potential.train(task)
        took = time.perf_counter() - start, time.process_time() - cpu
        answers = [answer.to_plain() for atoms in test for answer in potential.load(result.model).predict([atoms])]
    found = errors(test, answers)
    steps, wall, processor = result.steps, *took
    print(
        f"{len(given)} structures of {len(given[0])} atoms, {steps} steps, {wall:.0f} s (processor {processor:.0f} s)"
    )
    print(f"{len(test)} unseen structures")
    for quantity, name, scale, unit in QUANTITIES:
        rmse, mae = (scale * getattr(found, f"{name}_{kind}") for kind in ("rmse", "mae"))
        print(f"{quantity}  RMSE {rmse:8.2f}   MAE {mae:8.2f} {unit}")
    print(f"theirs: {spread(test)}")


def atomic_energies(structures: list[Atoms]) -> dict[str, float]:
    """By chemical symbol, of least norm. [eV]"""
    species = sorted({symbol for atoms in structures for symbol in atoms.symbols})
    counts = np.array([[list(atoms.symbols).count(symbol) for symbol in species] for atoms in structures], float)
    energies = np.array([atoms.get_potential_energy() for atoms in structures])
    return dict(zip(species, np.linalg.lstsq(counts, energies, rcond=None)[0].tolist(), strict=True))


def spread(structures: list[Atoms]) -> str:
    """How far the labels themselves are from their mean: what one who knows nothing would be wrong by."""
    energies = np.array([atoms.get_potential_energy() / len(atoms) for atoms in structures])
    forces = np.concatenate([atoms.get_forces(apply_constraint=False) for atoms in structures])
    stresses = np.array([atoms.get_stress() for atoms in structures])
    return (
        f"energies vary by {1e3 * energies.std():.2f} meV/atom, forces by {1e3 * forces.std():.0f} meV/Å, "
        f"stresses by {1e3 * (stresses - stresses.mean(axis=0)).std() / units.GPa:.0f} MPa"
    )


if __name__ == "__main__":
    main()
