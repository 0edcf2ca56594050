"""What it costs that nothing is lost: the journal, the labels and the results on disk, at tasks of 10 ms.

    PYTHONPATH=benchmarks python benchmarks/durability.py [--labels 400] [--rounds 4]   (workers import this file)

A campaign labels toy structures on two workers; a label keeps its worker busy for 10 ms. Every other campaign waits
for no disk: its journal is not synchronised, its labels neither, and no result is written. The ratio is taken within
a round, from the first start to the last label. Shares are of the driver's time, and of the time of both workers:
the processor time of writing (a call of SQLite gives other threads their turn; theirs is not counted), and, apart
from it, the time in which the driver waits for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes

import psiflow_core as psiflow
from psiflow_core import files
from psiflow_core.execution.tasks import perform as worker
from psiflow_core.labels import store
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.request import read_campaign

WORKERS, TASK = 2, 0.01
"""Tasks at once, and how long each computes. [s]"""

LOG, OFF = "DURABILITY_LOG", "DURABILITY_OFF"
"""Environment variables for workers: where times are written, and whether to wait for no disk."""


class TenMilliseconds(Calculator):  # type: ignore[misc]
    """Atoms on springs; psiflow imports this module on a worker to find it."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        end = time.perf_counter() + TASK
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.5 * float(np.sum(atoms.positions**2)), "forces": -atoms.positions}
        while time.perf_counter() < end:
            pass


def timed(
    function: Callable[..., Any], what: Callable[..., str], log: Path, clock: Callable[[], float] = time.thread_time
) -> Callable[..., Any]:
    """The function, with a line in a log for each call: what it was for, and how long it took [s].

    Args:
        clock: `time.thread_time` for the processor's time, `time.perf_counter` for that of the clock on the wall.
    """

    @functools.wraps(function)
    def measured(*given: Any, **named: Any) -> Any:
        start = clock()
        try:
            return function(*given, **named)
        finally:
            took = clock() - start
            with log.open("a") as lines:
                lines.write(f"{what(*given)} {time.time():.4f} {took:.7f}\n")

    return measured


def written(path: Path, *rest: Any) -> str:
    """What a worker writes a file for."""
    return "result" if path.name == worker.RESULT else "label" if "labels" in path.parts else "other"


def without_results(path: Path, plain: Any, durable: bool = False) -> None:
    """Write a label, but for the disk's own time; no result."""
    if path.name != worker.RESULT:
        files.write_sealed(path, plain)


def unsynchronised(journal: Journal, path: Path, **how: Any) -> None:
    """Open a journal that is not written to the disk at once."""
    open_journal(journal, path, **how)
    journal.settle = lambda now=False: None  # type: ignore[method-assign]


open_journal = Journal.__init__

if OFF in os.environ:
    worker.write_sealed = store.write_sealed = without_results
    Journal.__init__ = unsynchronised  # type: ignore[method-assign]
if LOG in os.environ:
    worker.write_sealed = store.write_sealed = timed(files.write_sealed, written, Path(os.environ[LOG]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--labels", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run, arguments.labels)
        return
    rounds = [{off: measure(arguments.labels, off) for off in (False, True)} for _ in range(arguments.rounds)]
    for name, whose in (
        ("journal", "the driver's"),
        ("disk", "the driver's"),
        ("result", "both workers'"),
        ("label", "both workers'"),
    ):
        durable, not_durable = ([100 * one[off][name] for one in rounds] for off in (False, True))
        print(
            f"{name:8} {np.median(durable):6.2f} % of {whose} time ({shown(durable)}); "
            f"without the disk {np.median(not_durable):.2f} % ({shown(not_durable)})"
        )
    rates = {off: [one[off]["rate"] for one in rounds] for off in (False, True)}
    ratios = [safe / fast for safe, fast in zip(rates[False], rates[True], strict=True)]
    print(f"durable     {np.median(rates[False]):6.1f} labels/s")
    print(f"not durable {np.median(rates[True]):6.1f} labels/s")
    print(f"durable / not durable {np.median(ratios):.3f}   (rounds: {shown(ratios)})")


def shown(numbers: list[float]) -> str:
    return ", ".join(f"{number:.3f}" for number in numbers)


def measure(labels: int, off: bool) -> dict[str, float]:
    """One campaign, in a process of its own: labels per second, and shares of the time."""
    folder = Path(tempfile.mkdtemp(prefix="psiflow-durability-"))
    os.environ[LOG] = str(folder / "log")
    os.environ.pop(OFF, None)
    if off:
        os.environ[OFF] = "1"
    subprocess.run([sys.executable, __file__, "--run", str(folder), "--labels", str(labels)], check=True)
    events = read_campaign(folder / "campaign").events
    begun = next(event.time for event in events if event.kind == "started")
    wall = [event.time for event in events if event.kind == "labelled"][labels - 1] - begun
    spent = dict.fromkeys(("journal", "disk", "result", "label", "other"), 0.0)
    for line in (folder / "log").read_text().splitlines():
        what, when, took = line.split()
        if begun <= float(when) <= begun + wall:
            spent[what] += float(took)
    shutil.rmtree(folder)
    found = {"rate": labels / wall} | {what: spent[what] / wall for what in ("journal", "disk")}
    return found | {what: spent[what] / wall / WORKERS for what in ("result", "label")}


def measure_journal(log: Path) -> None:
    """Note the time of every event, and of the beginning and the end of every block of events."""
    together = Journal.together

    @contextlib.contextmanager
    def block(journal: Journal) -> Iterator[None]:
        inner = together(journal)
        timed(inner.__enter__, as_journal, log)()
        try:
            yield
        finally:
            timed(inner.__exit__, as_journal, log)(None, None, None)

    files._sync = timed(files._sync, lambda path: "disk", log, time.perf_counter)
    Journal.append = timed(Journal.append, as_journal, log)  # type: ignore[method-assign]
    Journal.together = block  # type: ignore[assignment]


def as_journal(*given: Any) -> str:
    return "journal"


def run(folder: Path, labels: int) -> None:
    """The campaign."""
    measure_journal(Path(os.environ[LOG]))
    learning = psiflow.OnlineLearning(
        potential="toy",
        sampler="ase",
        reference=psiflow.reference("ase", calculator="durability:TenMilliseconds"),
        walkers=1,
        committee=1,
        budget=psiflow.Budget(labels=labels),
        bootstrap=psiflow.Bootstrap(structures=labels),
    )
    with psiflow.Context(psiflow.executor("local", workers=WORKERS), folder=folder / "pools") as context:
        learning.run(molecule("H2O"), folder / "campaign", context, progress=False)


if __name__ == "__main__":
    main()
