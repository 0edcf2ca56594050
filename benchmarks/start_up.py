"""What a user waits for before anything is computed, over what `import ase` takes.

    python benchmarks/start_up.py [--rounds 10]

Every command runs in a new interpreter, once a round, `python -c "import ase"` among them; the ratio is taken within a
round. `psiflow status` looks at a small finished campaign.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from psiflow_toys import campaigns

import psiflow_core as psiflow

LABELS = 12
"""Of the campaign that `psiflow status` looks at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="psiflow-bench-") as place:
        commands = commands_for(small_campaign(Path(place)))
        for command in commands.values():
            seconds(command)  # bytecode is compiled, and files are in memory
        table = np.array([[seconds(command) for command in commands.values()] for _ in range(rounds)])
    ratios = np.median(table / table[:, :1], axis=0)
    for name, measured, ratio in zip(commands, np.median(table, axis=0), ratios, strict=True):
        print(f"{name:40s} {measured:6.2f} s   {ratio:5.2f} x import ase")


def small_campaign(place: Path) -> Path:
    """A finished campaign of the toys."""
    with psiflow.Context("threads", folder=place / "pools") as context:
        return campaigns.run(place / "campaign", context, campaigns.learning(LABELS)).folder


def commands_for(campaign: Path) -> dict[str, list[str]]:
    """By name: the command. The first one is what the others are compared with."""
    python, command = [sys.executable, "-c"], [sys.executable, "-m", "psiflow_core.cli"]
    return {
        "import ase": [*python, "import ase"],
        "psiflow --version": [*command, "--version"],
        "psiflow status": [*command, "status", str(campaign)],
        "psiflow plugins": [*command, "plugins"],
        "first use of psiflow_core.OnlineLearning": [*python, "import psiflow_core; psiflow_core.OnlineLearning"],
    }


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
