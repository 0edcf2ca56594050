"""A small campaign through SLURM, compared with the same one on local workers: wall time, with the start of workers.

    python benchmarks/slurm_over_local.py [--labels 30] [--rounds 2] [--pause 1]

SLURM runs on this machine, on nodes that are hosts of their own (`tests/slurm/start`; needs root, slurm-wlm, munge and
iproute2), and is empty: a job waits for a second. The toy potential learns a toy reference whose labels take
`--pause` seconds, on two workers, which are one job under SLURM. The two alternate; the ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from psiflow_toys.campaigns import learning, run
from psiflow_toys.cluster import missing, private_slurm

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.learning.driver.request import read_campaign

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pause", type=float, default=1.0)
    arguments = parser.parse_args()
    if reason := missing():
        parser.exit(1, f"{reason}\n")
    pools = {
        "local": psiflow.executor("local", workers=2),
        "slurm": psiflow.executor("slurm", cores=2, poll=1.0, walltime="1:00:00"),
    }
    place = Path(tempfile.mkdtemp(prefix="psiflow-slurm-over-local-"))
    with private_slurm(ROOT, place) as cluster:
        os.environ["SLURM_CONF"] = str(cluster.folder / "slurm.conf")
        for number in range(arguments.rounds):
            taken = {name: campaign(pool, place / f"{name}{number}", arguments) for name, pool in pools.items()}
            told = ", ".join(f"{name} {whole:.1f} s (labels {rest:.1f} s)" for name, (whole, rest) in taken.items())
            ratios = [slurm / local for slurm, local in zip(taken["slurm"], taken["local"], strict=True)]
            print(f"round {number}: {told}; ratio {ratios[0]:.2f}, of the labels' time {ratios[1]:.2f}", flush=True)


def campaign(pool: Spec, folder: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """Wall time of a campaign, and that from its first label to its last. [s]"""
    asked = learning(labels=arguments.labels, reference=psiflow.reference("toy", delay=arguments.pause))
    begun = time.monotonic()
    with psiflow.Context(pool) as context:
        run(folder, context, asked)
    whole = time.monotonic() - begun
    times = [event.time for event in read_campaign(folder).events if event.kind == "labelled"]
    return whole, max(times) - min(times)


if __name__ == "__main__":
    main()
