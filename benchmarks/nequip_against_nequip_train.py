"""Train potential `nequip` or `allegro` and `nequip-train` alike, and print errors on unseen structures and time.

    python benchmarks/nequip_against_nequip_train.py DATA.xyz ATOMS.xyz [--potential allegro] [--steps 400] …

DATA.xyz holds labelled structures, ATOMS.xyz isolated atoms with their energies. Both programs get the same training,
validation and test structures, network, loss, optimiser, learning rate and its decay, clipping, averaging and number
of gradient steps, and run as a user's shell would run them, start-up included. NequIP's own calculator judges both.
It needs an environment in which psiflow-nequip is installed.
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
from psiflow_core.registry.plugins import registry

name, options, energies, seed = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
data = read("train.xyz", ":"), read("valid.xyz", ":")
potential = registry().find("potential", name).component.parse(options)
potential.train(TrainingTask(*data, atomic_energies=energies, seed=seed, folder=Path("ours")))
"""

BUILDERS = {"nequip": "nequip.model.NequIPGNNModel", "allegro": "allegro.model.AllegroModel"}


def main() -> None:
    arguments = parse()
    structures = read(arguments.data, ":")
    order = np.random.default_rng(0).permutation(len(structures))
    bounds = np.cumsum([arguments.train, arguments.valid, arguments.test])
    parts = [[structures[k] for k in part] for part in np.split(order, bounds)[:3]]
    energies = {atoms.get_chemical_symbols()[0]: atoms.get_potential_energy() for atoms in read(arguments.atoms, ":")}
    present = {symbol for part in parts for atoms in part for symbol in atoms.get_chemical_symbols()}
    energies = {symbol: energies[symbol] for symbol in sorted(present)}
    rows: dict[str, list[list[float]]] = {"psiflow": [], "nequip-train": []}
    for seed in range(1, arguments.seeds + 1):
        for name, command in (("psiflow", ours), ("nequip-train", theirs)):
            rows[name].append(trial(arguments, command(arguments, energies, seed), parts))
            print(f"{name:>15} seed {seed}: " + "  ".join(f"{value:8.2f}" for value in rows[name][-1]), flush=True)
    table(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("atoms", type=Path)
    parser.add_argument("--potential", choices=list(BUILDERS), default="nequip")
    for name, default in {"train": 40, "valid": 10, "test": 200, "steps": 400, "batch": 4, "seeds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=0.03)
    return parser.parse_args()


def ours(arguments: argparse.Namespace, energies: dict[str, float], seed: int) -> list[str]:
    options = {
        "steps": arguments.steps,
        "batch_size": arguments.batch,
        "learning_rate": arguments.rate,
        "evaluate_every": arguments.train // arguments.batch,
    }
    return [sys.executable, "-c", OURS, arguments.potential, json.dumps(options), json.dumps(energies), str(seed)]


def theirs(arguments: argparse.Namespace, energies: dict[str, float], seed: int) -> list[str]:
    """`nequip-train` and the configuration that says what our options say."""
    configuration = {
        "run": ["train"],
        "hydra": {"run": {"dir": "theirs"}},
        "data": their_data(arguments, energies, seed),
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_steps": arguments.steps,
            "gradient_clip_val": 10.0 / 110.0,  # their loss is scaled to weights of sum one
            "enable_progress_bar": False,
            "logger": False,
            "callbacks": [
                {
                    "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "dirpath": "theirs",
                    "filename": "best",
                    "monitor": "val0_epoch/weighted_sum",
                }
            ],
        },
        "training_module": their_training(arguments, energies, seed),
    }
    write_configuration = (
        "import sys; from pathlib import Path; from nequip.scripts import train;"
        "Path('config.yaml').write_text(sys.argv.pop(1));"
        "sys.argv[1:] = ['-cp', str(Path.cwd()), '-cn', 'config']; train.main()"
    )
    return [sys.executable, "-c", write_configuration, json.dumps(configuration)]


def their_data(arguments: argparse.Namespace, energies: dict[str, float], seed: int) -> dict[str, Any]:
    symbols = list(energies)
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": arguments.batch}
    return {
        "_target_": "nequip.data.datamodule.ASEDataModule",
        "seed": seed,
        "train_file_path": "train.xyz",
        "val_file_path": "valid.xyz",
        "transforms": [
            {
                "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
                "model_type_names": symbols,
                "chemical_species_to_atom_type_map": {symbol: symbol for symbol in symbols},
            },
            {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": network(arguments)["r_max"]},
        ],
        "train_dataloader": {**loader, "shuffle": True},
        "val_dataloader": loader,
        "stats_manager": {
            "_target_": "nequip.data.CommonDataStatisticsManager",
            "type_names": symbols,
            "dataloader_kwargs": {"batch_size": arguments.batch},
        },
    }


def their_training(arguments: argparse.Namespace, energies: dict[str, float], seed: int) -> dict[str, Any]:
    decay = 0.01 ** (1 / (arguments.steps - 1))
    return {
        "_target_": "nequip.train.EMALightningModule",
        "ema_decay": 0.99,
        "loss": {
            "_target_": "nequip.train.EnergyForceLoss",
            "per_atom_energy": True,
            "coeffs": {"total_energy": 10.0, "forces": 100.0},
        },
        "val_metrics": {
            "_target_": "nequip.train.EnergyForceMetrics",
            "coeffs": {"per_atom_energy_rmse": 1.0, "forces_rmse": 1.0},
        },
        "optimizer": {"_target_": "torch.optim.Adam", "lr": arguments.rate, "amsgrad": True},
        "lr_scheduler": {
            "scheduler": {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": decay},
            "interval": "step",
        },
        "model": {
            "_target_": BUILDERS[arguments.potential],
            "seed": seed,
            "model_dtype": "float32",
            "type_names": list(energies),
            **network(arguments),
            "avg_num_neighbors": "${training_data_stats:num_neighbors_mean}",
            "per_type_energy_scales": "${training_data_stats:forces_rms}",
            "per_type_energy_shifts": energies,
        },
    }


def network(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of the library's model builder that our defaults stand for."""
    from psiflow_nequip.potential import Allegro, Nequip

    return {"nequip": Nequip, "allegro": Allegro}[arguments.potential]().network()


def trial(arguments: argparse.Namespace, command: list[str], parts: list[list[Any]]) -> list[float]:
    """Errors [meV/Å, meV/Å, meV/atom] and times [s] of one training in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for name, part in zip(("train", "valid"), parts, strict=False):
            write(Path(folder) / f"{name}.xyz", part)
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=one_thread())
        if process.returncode:
            sys.exit(process.stdout[-2000:] + process.stderr[-2000:])
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return [*judge(saved(arguments, Path(folder)), parts[2]), wall, cpu]


def saved(arguments: argparse.Namespace, folder: Path) -> Path:
    """The model in a format of the library's: their checkpoint, or a package of ours."""
    from psiflow_nequip.potential import Allegro, Nequip

    if (folder / "theirs").exists():
        return folder / "theirs" / "best.ckpt"
    potential = {"nequip": Nequip, "allegro": Allegro}[arguments.potential]()
    potential.export(folder / "ours" / "model.pt", folder / "ours.nequip.zip")
    return folder / "ours.nequip.zip"


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def judge(model: Path, test: list[Any]) -> list[float]:
    from nequip.integrations.ase import NequIPCalculator

    calculator = NequIPCalculator._from_saved_model(model, chemical_species_to_atom_type_map=True)
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
