"""Export to the library's own formats, by the library's own commands in a separate process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from psiflow_torch.engine import torch
from psiflow_torch.model import Model
from psiflow_torch.programs import samples

from psiflow_core.errors import OptionError
from psiflow_core.files import copy_atomically
from psiflow_core.structures import Plain
from psiflow_nequip._engine import prepared, quiet

BUILDERS = {"nequip": "nequip.model.NequIPGNNModel", "allegro": "allegro.model.AllegroModel"}
TARGETS = {"nequip": "pair_nequip", "allegro": "pair_allegro"}
"""The names of the LAMMPS pair styles in `nequip-compile`."""


def export(model: Path, potential: str, target: Path) -> None:
    """Write a model for the library's own tools: see `Equivariant.export`.

    Raises:
        OptionError: the target's name does not name a format.
    """
    purpose = _purpose(potential, target.name)
    held = Model.open(model, potential)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, package = Path(folder) / "model.ckpt", Path(folder) / "model.nequip.zip"
        _write_checkpoint(held, checkpoint)
        _run("nequip.scripts.package", "build", str(checkpoint), str(package))
        made = package if purpose is None else _compiled(package, purpose)
        copy_atomically(made, target)


def _purpose(potential: str, name: str) -> str | None:
    """The target of `nequip-compile`; None for a package."""
    if name.endswith(".lammps.nequip.pt2"):
        return TARGETS[potential]
    if name.endswith(".ase.nequip.pt2"):
        return "ase"
    if name.endswith((".pt2", ".pth")):
        raise OptionError(
            f"'{name}' does not name a format: end it with .lammps.nequip.pt2 or .ase.nequip.pt2 for compiled "
            "models, or with .nequip.zip for a package, the input of nequip-compile"
        )
    return None


def _compiled(package: Path, purpose: str) -> Path:
    target = package.with_name("model.nequip.pt2")
    options = ("--mode", "aotinductor", "--device", "cpu", "--target", purpose)
    _run("nequip.scripts.compile", str(package), str(target), *options)
    return target


def _write_checkpoint(model: Model, target: Path) -> None:
    """Write a checkpoint like `nequip-train`: the commands read no other file."""
    from lightning import __version__ as lightning
    from nequip.train.lightning import NequIPLightningModule
    from nequip.utils.versions import get_current_code_versions

    example = target.with_name("example.xyz")
    ase.io.write(example, _example(model))
    module = {
        "_target_": "nequip.train.NequIPLightningModule",
        "model": {
            "_target_": BUILDERS[model.potential],
            "seed": 0,
            "model_dtype": model.dtype,
            **model.plan,
        },
    }
    described = {
        "versions": get_current_code_versions(verbose=False),
        "data": _data(model, example),
        "training_module": module,
        "runs": ["train"],
    }
    with prepared(), quiet():
        trained = NequIPLightningModule(
            model=module["model"], num_datasets={"train": 1, "val": 1, "test": 0, "predict": 0}, info_dict=described
        )
    trained.model["sole_model"].load_state_dict(model.weights)
    held = {
        "state_dict": trained.state_dict(),
        "hyper_parameters": dict(trained.hparams),
        "pytorch-lightning_version": lightning,
    }
    torch.save(held, target)


def _data(model: Model, example: Path) -> Plain:
    """The commands' configuration of the example structure."""
    transforms: list[dict[str, Any]] = [
        {
            "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
            "model_type_names": model.symbols,
            "chemical_species_to_atom_type_map": {symbol: symbol for symbol in model.symbols},
        },
        {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": model.cutoff},
    ]
    return {
        "_target_": "nequip.data.datamodule.ASEDataModule",
        "seed": 0,
        "train_file_path": str(example),
        "val_file_path": str(example),
        "transforms": transforms,
    }


def _example(model: Model) -> Atoms:
    """A labelled crystal."""
    (atoms,) = samples(model, (max(12, len(model.symbols)),))
    atoms.center(vacuum=model.cutoff / 5)
    atoms.pbc = True
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=0.0 * atoms.positions)
    return atoms


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr.strip()}")
