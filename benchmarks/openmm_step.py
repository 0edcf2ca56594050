"""What an OpenMM step costs over the bare prediction of its structure, and what an ASE step costs.

    python benchmarks/openmm_step.py [--rounds 7] [--steps 100]

A small MACE potential is trained for a few steps on a toy (cost does not depend on the weights). The three
are measured in turn, round by round, in CPU time on one thread; ratios are taken within a round, so that a
busy machine disturbs them little. The set-up of a segment is part of its steps.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

from psiflow_core.components import Predictor, SamplingTask, TrainingTask, Walker
from psiflow_core.structures import Label, with_label

TIMESTEP, TEMPERATURE, FRICTION = 0.1, 100.0, 2.0  # [fs], [K], [1/ps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    predictor = toy_mace()
    print(f"{'system':>14} {'predict':>9} {'OpenMM':>9} {'ASE':>9} {'OpenMM/predict':>15} {'ASE/predict':>12}")
    for name, atoms in (("acetaldehyde", molecule("CH3CHO")), ("32 waters", water())):
        costs = compare(predictor, atoms, arguments.rounds, arguments.steps)
        bare, openmm, ase = np.median(costs, axis=0) * 1e3
        over, ase_over = np.median(costs[:, 1:] / costs[:, :1], axis=0)
        print(f"{name:>14} {bare:6.2f} ms {openmm:6.2f} ms {ase:6.2f} ms {over:15.3f} {ase_over:12.3f}")


def compare(predictor: Predictor, atoms: Atoms, rounds: int, steps: int) -> np.ndarray:
    """CPU seconds per step of bare prediction, OpenMM and ASE, shape (rounds, 3)."""
    runs = [run(predictor, atoms.copy(), steps) for run in (bare, with_openmm, with_ase)]
    for run in runs:
        run()  # imports, compilation and caches
    return np.array([[seconds(run) / steps for run in runs] for _ in range(rounds)])


def bare(predictor: Predictor, atoms: Atoms, steps: int) -> Callable[[], object]:
    return lambda: [predictor.predict([atoms]) for _ in range(steps)]


def with_openmm(predictor: Predictor, atoms: Atoms, steps: int) -> Callable[[], object]:
    from psiflow_openmm_sampler.sampler import OpenMM

    sampler = OpenMM(temperature=TEMPERATURE, timestep=TIMESTEP, friction=FRICTION)
    task = SamplingTask(steps, seed=1)
    return lambda: sampler.sample(Walker(atoms), predictor.calculator(), task, lambda step, now: None)


def with_ase(predictor: Predictor, atoms: Atoms, steps: int) -> Callable[[], object]:
    def run() -> None:
        moving = atoms.copy()
        moving.calc = predictor.calculator()
        bath = {"temperature_K": TEMPERATURE, "friction": FRICTION / (1000 * units.fs)}
        Langevin(moving, TIMESTEP * units.fs, fixcm=False, rng=np.random.default_rng(1), **bath).run(steps)

    return run


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def toy_mace(**options: Any) -> Predictor:
    """A MACE of its plugin's default size, or of another, trained for a few steps on EMT's idea of molecules."""
    import torch
    from psiflow_mace.potential import Mace

    torch.set_num_threads(1)
    structures = [labelled(molecule(name), seed) for name in ("CH3CHO", "H2O") for seed in range(4)]
    atomic_energies = {"H": 3.2, "C": 3.5, "O": 4.6}  # [eV], EMT's
    with tempfile.TemporaryDirectory() as folder:
        task = TrainingTask(structures, structures[:2], atomic_energies, seed=1, folder=Path(folder), steps=10)
        potential = Mace(**options)
        return potential.load(potential.train(task).model)


def labelled(atoms: Atoms, seed: int) -> Atoms:
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    return with_label(atoms, Label(atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)))


def water() -> Atoms:
    """32 molecules at about the density of water, on a lattice, each turned its own way."""
    box = Atoms(cell=np.eye(3) * 9.86, pbc=True)
    random = np.random.default_rng(2)
    for site in [(i, j, k) for i in range(4) for j in range(4) for k in range(2)]:
        one = molecule("H2O")
        one.rotate(random.uniform(0, 360), random.normal(size=3), center="COM")
        one.translate((np.array(site) + 0.5) * np.array([9.86 / 4, 9.86 / 4, 9.86 / 2]))
        box += one
    return box


if __name__ == "__main__":
    main()
