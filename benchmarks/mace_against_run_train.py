"""Train potential `mace` and `mace_run_train` alike, and print errors on unseen structures and time of both.

    python benchmarks/mace_against_run_train.py DATA.xyz ATOMS.xyz [--steps 400] [--seeds 3] …

DATA.xyz holds labelled structures, ATOMS.xyz isolated atoms with their energies. Both programs get the same training,
validation and test structures, network, loss, optimiser, learning rate, averaging and number of gradient steps,
and run as a user's shell would run them, start-up included. MACE's own calculator judges both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read, write

OURS = """
import json, sys
from pathlib import Path
from ase.io import read
from psiflow_core.components import TrainingTask
from psiflow_mace.potential import Mace

options, energies, seed = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
data = read("train.xyz", ":"), read("valid.xyz", ":")
potential = Mace(**options)
result = potential.train(TrainingTask(*data, atomic_energies=energies, seed=seed, folder=Path("ours")))
potential.export(result.model, Path("final.model"))
"""


def main() -> None:
    arguments = parse()
    structures = read(arguments.data, ":")
    order = np.random.default_rng(0).permutation(len(structures))
    bounds = np.cumsum([arguments.train, arguments.valid, arguments.test])
    parts = [[structures[k] for k in part] for part in np.split(order, bounds)[:3]]
    energies = {atoms.get_chemical_symbols()[0]: atoms.get_potential_energy() for atoms in read(arguments.atoms, ":")}
    present = {symbol for part in parts for atoms in part for symbol in atoms.get_chemical_symbols()}
    energies = {symbol: energies[symbol] for symbol in sorted(present)}
    rows: dict[str, list[list[float]]] = {"psiflow": [], "mace_run_train": []}
    for seed in range(1, arguments.seeds + 1):
        for name, command in (("psiflow", ours), ("mace_run_train", theirs)):
            rows[name].append(trial(command(arguments, energies, seed), parts))
            print(f"{name:>15} seed {seed}: " + "  ".join(f"{value:8.2f}" for value in rows[name][-1]), flush=True)
    table(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("atoms", type=Path)
    for name, default in {"train": 40, "valid": 10, "test": 200, "steps": 400, "batch": 4, "seeds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.02)
    return parser.parse_args()


def ours(arguments: argparse.Namespace, energies: dict[str, float], seed: int) -> list[str]:
    options = {
        "num_channels": arguments.channels,
        "steps": arguments.steps,
        "batch_size": arguments.batch,
        "learning_rate": arguments.rate,
        "learning_rate_decay": 1.0,
        "evaluate_every": arguments.train // arguments.batch,
        "max_ell": 3,
        "correlation": 2,
        "energy_weight": 10.0,
        "forces_weight": 100.0,
    }
    return [sys.executable, "-c", OURS, json.dumps(options), json.dumps(energies), str(seed)]


def theirs(arguments: argparse.Namespace, energies: dict[str, float], seed: int) -> list[str]:
    from ase.data import atomic_numbers

    options: dict[str, Any] = {
        "name": "final",
        "seed": seed,
        "train_file": "train.xyz",
        "valid_file": "valid.xyz",
        "E0s": repr({int(atomic_numbers[symbol]): float(energy) for symbol, energy in energies.items()}),
        "model": "MACE",
        "r_max": 5.0,
        "num_channels": arguments.channels,
        "max_L": 0,
        "max_ell": 3,
        "correlation": 2,
        "max_num_epochs": arguments.steps * arguments.batch // arguments.train,
        "batch_size": arguments.batch,
        "valid_batch_size": arguments.batch,
        "lr": arguments.rate,
        "scheduler": "ExponentialLR",
        "lr_scheduler_gamma": 1.0,
        "ema_decay": 0.99,
        "energy_weight": 10.0,
        "forces_weight": 100.0,
        "default_dtype": "float32",
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "plot": False,
    }
    return [
        *(sys.executable, "-m", "mace.cli.run_train", "--ema", "--amsgrad"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def trial(command: list[str], parts: list[list[Any]]) -> list[float]:
    """Errors [meV/Å, meV/Å, meV/atom] and times [s] of one training in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for name, part in zip(("train", "valid"), parts, strict=False):
            write(Path(folder) / f"{name}.xyz", [twice_labelled(atoms) for atoms in part])
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=one_thread())
        if process.returncode:
            sys.exit(process.stdout[-2000:] + process.stderr[-2000:])
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return [*judge(Path(folder) / "final.model", parts[2]), wall, cpu]


def twice_labelled(atoms: Any) -> Any:
    """The structure with its label where ASE looks for it, and under the names that `mace_run_train` insists on."""
    atoms = atoms.copy() if atoms.calc is None else atoms
    atoms.info["REF_energy"] = atoms.get_potential_energy()
    atoms.arrays["REF_forces"] = atoms.get_forces(apply_constraint=False)
    return atoms


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def judge(model: Path, test: list[Any]) -> list[float]:
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float64")
    energy, forces = [], []
    for labelled in test:
        atoms = labelled.copy()
        atoms.calc = calculator
        energy.append((atoms.get_potential_energy() - labelled.get_potential_energy()) / len(atoms))
        forces.append(atoms.get_forces(apply_constraint=False) - labelled.get_forces(apply_constraint=False))
    off = np.concatenate(forces)
    return [1e3 * float(x) for x in (np.sqrt(np.mean(off**2)), np.abs(off).mean(), np.sqrt(np.mean(np.square(energy))))]


def table(rows: dict[str, list[list[float]]]) -> None:
    heads = ("force RMSE", "force MAE", "energy RMSE", "wall", "CPU")
    units = ("meV/Å", "meV/Å", "meV/atom", "s", "s")
    print("\nmean ± standard deviation over seeds")
    print(" " * 15 + "".join(f"{head:>18}" for head in heads))
    print(" " * 15 + "".join(f"{unit:>18}" for unit in units))
    for name, trials in rows.items():
        values = np.array(trials)
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
        cells = (f"{mean:.1f} ± {width:.1f}" for mean, width in zip(values.mean(axis=0), spread, strict=True))
        print(f"{name:>15}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
