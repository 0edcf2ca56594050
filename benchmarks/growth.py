"""What the driver's own work costs as a campaign grows: a turn of its loop, and the opening of its journal.

    python benchmarks/growth.py [--turns 50] [--sizes 8x1000 100x10000 …] [--events 10000 100000]

A turn is one task that ended: its event is appended to the journal and applied, what comes next is planned and
started. Growth is linear if ten times the events take ten times as long to open, and a turn takes as long at any
number of labels. No worker runs. Times are the processor's, so that other programs and the disk do not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from psiflow_core import Bootstrap, Budget, Segments, Walking
from psiflow_core.execution.tasks.sample import Met
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.request import read_events
from psiflow_core.learning.machine.events import (
    Clock,
    Evaluated,
    Event,
    Happening,
    Labelled,
    Moved,
    Opened,
    Proposal,
    Proposed,
    Sampled,
    Scored,
    Started,
    Trained,
)
from psiflow_core.learning.machine.fold import apply, fold
from psiflow_core.learning.machine.generations import Predictions, TrainedMember, Weights
from psiflow_core.learning.machine.planning import plan
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import (
    Evaluating,
    Labelling,
    MemberTraining,
    Sampling,
    Scoring,
    Task,
    label_task,
    training_task,
)
from psiflow_core.learning.machine.termination import conclusion, exhausted
from psiflow_core.learning.policies.settings import Settings

POOLS = {"train": "all", "sample": "all", "label": "all"}

SLOTS = {"all": 16}
"""Far fewer than the walkers of the large sizes: most of these are ready, and wait for a worker."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--sizes", nargs="+", default=["8x1000", "100x10000", "1000x10000", "1000x100000"])
    parser.add_argument("--events", nargs="+", type=int, default=[10_000, 100_000])
    arguments = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes]
    with tempfile.TemporaryDirectory(prefix="psiflow-bench-") as folder:
        print("walkers   labels   turn [ms]   × the line before")
        turns = [1e3 * turn(Path(folder), walkers, labels, arguments.turns) for walkers, labels in sizes]
        for (walkers, labels), line in zip(sizes, growth(turns), strict=True):
            print(f"{walkers:7d} {labels:8d} {line}")
        print("events    opening [s]   × the line before")
        openings = [opening(Path(folder), events) for events in arguments.events]
        for events, line in zip(arguments.events, growth(openings), strict=True):
            print(f"{events:7d} {line}")


def growth(values: list[float]) -> Iterator[str]:
    """Each value, and its ratio to the one before."""
    for number, value in enumerate(values):
        yield f"{value:11.3f}" + (f" {value / values[number - 1]:11.2f}" if number else "")


class Campaign:
    """A driver without workers: everything that it is told comes out well."""

    def __init__(self, file: Path, walkers: int, labels: int, slots: Mapping[str, int] = SLOTS) -> None:
        self.settings = Settings(
            budget=Budget(labels=2 * labels + 100),
            walkers=walkers,
            committee=2,
            bootstrap=Bootstrap(structures=1),
            walking=Walking(segment=Segments(batch=1)),
        )
        self.state = State()
        self.journal = Journal(file, write=True)
        self.under_way: deque[str] = deque()
        """The tasks in the order in which they end."""
        self.slots = slots
        self.labels = 0
        """Labels of its turns."""

    def begin(self, labels: int) -> None:
        """Open a campaign that has so many labels, and a generation that knows them."""
        self.append(begun())
        known = tuple(Proposal(structure=f"known {n}", origin="walker", file=f"{n}.json") for n in range(labels))
        self.append(Proposed(candidates=known))
        upto = tuple(range(labels))
        for member in range(2):
            self.append(Started(task=training_task(0, member, final=False, upto=None if member else upto)))
        for member in range(2):
            self.append(trained(training_task(0, member, final=False)))
        self.go_on()

    def append(self, what: Happening) -> None:
        line = self.journal.append(what.kind, what.to_plain())
        apply(self.state, Event(line.number, line.time, what), self.settings)

    def turn(self) -> None:
        """What a driver does when a task has ended."""
        task = self.state.running[self.under_way.popleft()]
        self.labels += isinstance(task.about, Labelling)
        with self.journal.together():
            self.append(ended(task))
            self.go_on()

    def go_on(self) -> None:
        assert exhausted(self.state, self.settings) is None
        while tasks := plan(self.state, self.settings, POOLS, self.slots):
            for task in tasks:
                self.append(Started(task=task))
                self.under_way.append(task.id)
        assert conclusion(self.state, self.settings) is None


def turn(folder: Path, walkers: int, labels: int, turns: int) -> float:
    """Seconds of a turn, of the processor: the median."""
    campaign = Campaign(folder / f"{walkers}-{labels}.sqlite", walkers, labels)
    campaign.begin(labels)
    spent = []
    for _ in range(turns):
        start = time.process_time()
        campaign.turn()
        spent.append(time.process_time() - start)
    campaign.journal.close()
    return float(np.median(spent))


def opening(folder: Path, events: int) -> float:
    """Seconds of the processor to open a journal for writing, and to come to the state that it tells."""
    file = folder / f"{events}.sqlite"
    journal = Journal(file, write=True)
    with journal.together():
        for what in history(events):
            journal.append(what.kind, what.to_plain())
    journal.close()
    settings = Settings(budget=Budget(labels=events), walkers=8, committee=2)
    start = time.process_time()
    journal = Journal(file, write=True)
    state = fold(read_events(journal), settings)
    seconds = time.process_time() - start
    journal.close()
    assert state.last == events
    return seconds


def history(events: int) -> Iterator[Happening]:
    """The first events of a campaign: eight walkers meet candidates, which are labelled."""
    yield begun()
    for number in range(events - 1):
        label, what = divmod(number, 4)
        sampling = Sampling(walkers=(label % 8,), generation=0, progress=label)
        task = Task(id=f"sample-{label:05d}", about=sampling) if what < 2 else label_task(label)
        yield ended(task) if what % 2 else Started(task=task)


def begun() -> Opened:
    return Opened(
        configuration={},
        versions={},
        context={},
        homes=(),
        slots=SLOTS,
        host="here",
        clock=Clock(boot="", offset=0.0),
        closing=None,
    )


def trained(task: Task) -> Trained:
    result = TrainedMember(model=Weights(path="m", digest="d"), errors={"force_rmse": 0.1, "energy_rmse": 0.1})
    assert isinstance(task.about, MemberTraining)
    generation, member = task.about.generation, task.about.member
    return Trained(task=task.id, seconds=1.0, worker="w", generation=generation, member=member, result=result)


def ended(task: Task) -> Happening:
    """What a task came to; segments meet a candidate."""
    known = {"task": task.id, "seconds": 1.0, "worker": "host/1234"}
    match task.about:
        case Labelling(candidate=number):
            error = {"force_rmse": 0.2, "energy_per_atom": 0.01}
            verdict = {"error": error, "suspicious": False, "reset": False, "discard": False}
            return Labelled(**known, **verdict, candidate=number, file=f"labels/{number}.json", cached=False)
        case MemberTraining():
            return trained(task)
        case Scoring(candidates=candidates):
            return Scored(**known, deviations=tuple(0.3 for _ in candidates))
        case Evaluating(generation=number):
            result = Predictions(file="p.json", digest="d", generations=(), candidates=())
            return Evaluated(**known, generation=number, result=result)
    walkers = tuple(
        Moved(
            walker=walker,
            file=f"tasks/{task.id}/walker-{walker}.json",
            digest=64 * "d",
            steps=100,
            stopped=None,
            finished=False,
            averages={"temperature": 300.0},
            candidate=Met(structure=f"met in {task.id}", deviation=0.3, step=90),
        )
        for walker in task.about.walkers
    )
    return Sampled(**known, potential="toy", walkers=walkers)


if __name__ == "__main__":
    main()
