"""The same small campaign with MACE in the driver's environment and in one of its own: the ratio of their wall times.

    python benchmarks/environments.py OTHER [--rounds 3] [--labels 24] [--steps 300]

OTHER is an environment without psiflow-mace, nequip's for instance: its interpreter is the driver of the second
campaign, which finds MACE in this one. Sequential campaigns of one seed, so that both do the same tasks; the time is
from the first result to the end, by the journal: workers have started by then. Both label with GFN2-xTB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ase.build import molecule

import psiflow_core as psiflow
from psiflow_core.environments.environment import adopt, known, launch_words
from psiflow_core.learning.driver.request import read_campaign


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=24)
    parser.add_argument("--steps", type=int, default=300, help="of a training from scratch")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mace", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run, arguments)
        return
    other = Path(arguments.other)
    driver = launch_words(other) if other.exists() else known(arguments.other).launch
    ratios = []
    for number in range(arguments.rounds):
        ways = {"here": ((sys.executable,), []), "isolated": (driver, ["--mace", sys.executable])}
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        seconds = {name: timed(*ways[name], arguments) for name in order}
        ratios.append(seconds["isolated"] / seconds["here"])
        print("  ".join(f"{name} {value:.1f} s" for name, value in seconds.items()), flush=True)
    print(f"isolated / here {np.median(ratios):.3f}   (rounds: {', '.join(f'{ratio:.3f}' for ratio in ratios)})")


def timed(launch: tuple[str, ...], more: list[str], arguments: argparse.Namespace) -> float:
    """Wall time of a campaign from its first result to its end. [s]"""
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--labels", str(arguments.labels), "--steps", str(arguments.steps)]
        words = [*launch, __file__, arguments.other, *sizes, "--run", folder, *more]
        subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        events = read_campaign(Path(folder) / "campaign").events
    first = next(event.time for event in events if event.kind == "labelled")
    return next(event.time for event in events if event.kind == "finished") - first


def run(folder: Path, arguments: argparse.Namespace) -> None:
    """The campaign, in the interpreter of its driver."""
    if arguments.mace is not None:
        adopt("mace", arguments.mace)
    steps = arguments.steps
    learning = psiflow.OnlineLearning(
        potential=psiflow.potential("mace", num_channels=8, r_max=4.0, max_ell=2),
        sampler=psiflow.sampler("openmm", temperature=600.0),
        reference=psiflow.reference("ase", calculator="tblite"),
        walkers=4,
        committee=2,
        schedule="sequential",
        budget=psiflow.Budget(labels=arguments.labels),
        bootstrap=psiflow.Bootstrap(structures=8),
        training=psiflow.Training(steps=steps, warm_steps=steps // 2, final_steps=steps),
        selection=psiflow.selection("uncertain", threshold=0.0),
        walking=psiflow.Walking(segment=psiflow.Segments(steps=200, check_every=50)),
    )
    with psiflow.Context(psiflow.executor("local", workers=2), folder=folder / "pools") as context:
        learning.run(molecule("CH3CHO"), folder / "campaign", context, progress=False)


if __name__ == "__main__":
    main()
