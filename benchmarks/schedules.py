"""Sequential against concurrent: the same small campaign, wall time to the same number of labels.

    PYTHONPATH=benchmarks python benchmarks/schedules.py [--labels 60] [--steps 200] [--rounds 2] [--pause 2]

Workers import this file. A MACE committee of two learns GFN2-xTB (tblite) for acetaldehyde on two local workers.
A label is made to cost what a small DFT calculation does by a pause of `--pause` seconds, so that the schedule, and
not the arithmetic of a tiny reference, is measured. The schedules alternate; the ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from ase.calculators.calculator import all_changes
from tblite.ase import TBLite

import psiflow_core as psiflow
from psiflow_core.learning.driver.request import read_campaign

HERE = Path(__file__).parent


class SlowXTB(TBLite):  # type: ignore[misc]
    """GFN2-xTB that takes its time."""

    def __init__(self, pause: float = 1.0, **parameters: Any) -> None:
        super().__init__(method="GFN2-xTB", verbosity=0, **parameters)
        self._pause = pause

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        end = time.process_time() + self._pause
        super().calculate(atoms, properties, system_changes)
        while time.process_time() < end:  # busy, as DFT would be
            sum(range(1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=60)
    parser.add_argument("--steps", type=int, default=200, help="of a training from scratch")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pause", type=float, default=2.0)
    arguments = parser.parse_args()
    with psiflow.Context() as context:
        for number in range(arguments.rounds):
            taken = {}
            for schedule in ("sequential", "concurrent"):
                folder = Path(tempfile.mkdtemp(prefix=f"psiflow-{schedule}-"))
                campaign(schedule, arguments, number).run(
                    HERE.parent / "examples/acetaldehyde.xyz", folder / schedule, context, progress=False
                )
                taken[schedule] = to_last_label(folder / schedule)
            ratio = taken["sequential"] / taken["concurrent"]
            print(
                f"round {number}: to {arguments.labels} labels sequential {taken['sequential']:.0f} s, "
                f"concurrent {taken['concurrent']:.0f} s, ratio {ratio:.2f}"
            )


def campaign(schedule: str, arguments: argparse.Namespace, seed: int) -> psiflow.OnlineLearning:
    """The campaign, but for its schedule."""
    return psiflow.OnlineLearning(
        potential=psiflow.potential("mace", r_max=4.0),
        sampler=psiflow.sampler("openmm", ensemble="nvt", temperature=600.0),
        reference=psiflow.reference("ase", calculator="schedules:SlowXTB", parameters={"pause": arguments.pause}),
        walkers=6,
        committee=2,
        schedule=schedule,
        seed=seed,
        budget=psiflow.Budget(labels=arguments.labels),
        training=psiflow.Training(steps=arguments.steps, warm_steps=arguments.steps // 2),
    )


def to_last_label(folder: Path) -> float:
    """Seconds from the opening of the journal to the last label that the budget paid for."""
    events = read_campaign(folder).events
    return max(event.time for event in events if event.kind == "labelled") - events[0].time


if __name__ == "__main__":
    main()
