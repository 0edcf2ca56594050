"""Steps per second of 1, 8 and 32 walkers in one sampling worker: their force calls batched, and one by one.

    python benchmarks/batched_walkers.py [--rounds 3] [--steps 40]

The walkers are those of a sampling task: OpenMM, each with its own Context and seed, in threads whose force
calls meet in the rendezvous. One by one, each walker runs alone. Both in one process, on one thread of torch,
in turn, round by round; ratios are taken within a round. Seconds are of CPU time: all of it is one core's. The
cost of a model does not depend on its weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from ase import Atoms
from ase.build import molecule

sys.path.insert(0, str(Path(__file__).parent))
from openmm_step import TEMPERATURE, TIMESTEP, toy_mace, water

from psiflow_core.components import Predictor, Sampler, SamplingTask, Walker
from psiflow_core.potentials.predictors import Committee
from psiflow_core.sampling.monitor import Limits
from psiflow_core.sampling.walk import sample_together

ANYTHING = Limits(deviation=1e9, lost=1e9, force=1e9, distance=1e-3, temperature_quantile=1e-300)


def main() -> None:
    from psiflow_openmm_sampler.sampler import OpenMM

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--small", action="store_true", help="a smaller network: max_ell=1, r_max=4, 8 channels")
    arguments = parser.parse_args()
    size = {"max_ell": 1, "r_max": 4.0, "num_channels": 8} if arguments.small else {}
    predictor, sampler = toy_mace(**size), OpenMM(temperature=TEMPERATURE, timestep=TIMESTEP)
    print(f"{'system':>14} {'walkers':>8} {'one by one':>12} {'batched':>10} {'ratio':>7}   [steps per CPU second]")
    for name, atoms, counts in (("acetaldehyde", molecule("CH3CHO"), (1, 8, 32)), ("32 waters", water(), (1, 8))):
        for walkers in counts:
            rates = compare(sampler, predictor, atoms, walkers, arguments.steps, arguments.rounds)
            alone, together = np.median(rates, axis=0)
            ratio = np.median(rates[:, 1] / rates[:, 0])
            print(f"{name:>14} {walkers:8d} {alone:12.0f} {together:10.0f} {ratio:7.2f}")


def compare(sampler: Sampler, predictor: Predictor, atoms: Atoms, walkers: int, steps: int, rounds: int) -> np.ndarray:
    """Steps of all walkers per second of CPU time, one by one and batched, shape (rounds, 2)."""
    tasks = [SamplingTask(steps, seed=seed, check_every=steps) for seed in range(walkers)]
    few = min(walkers, 4)  # one by one every walker costs the same: four of them tell the rate

    def one_by_one() -> None:
        for task in tasks[:few]:
            sample_together(sampler, [Walker(atoms)], [task], predictor, Committee([predictor]), ANYTHING)

    def batched() -> None:
        sample_together(sampler, [Walker(atoms)] * walkers, tasks, predictor, Committee([predictor]), ANYTHING)

    batched()  # imports, compilation and caches
    measured = []
    for _ in range(rounds):
        start = time.process_time()
        one_by_one()
        middle = time.process_time()
        batched()
        measured.append((few * steps / (middle - start), walkers * steps / (time.process_time() - middle)))
    return np.array(measured)


if __name__ == "__main__":
    main()
