"""Real kills: small real campaigns of which the driver, workers, managers and interchanges are killed at random.

    python tests/end_to_end/chaos.py [--kills 100] [--seed 0] [--folder FOLDER]

Half of the kills (SIGKILL) hit the driver, which is started again at once, the others a process of its pool. When a
campaign ends before all kills are given, another begins. The reference writes down every computation that begins
and every one that ends (`psiflow_toys.counted`); at the end of each campaign they are held against the label store,
the journal and the data set. The last line says what was killed and what became of the labels.

A label is lost if a worker finished it and the campaign does not have it; a structure is computed twice if that
happened although its first label was on disk. What a killed process was at counts apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import ase.io
import psutil
from ase.build import molecule
from psiflow_toys.waiting import runs

import psiflow_core as psiflow
from psiflow_core.files import file_digest
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.fold import fold
from psiflow_core.potentials.trained import ModelFile, TrainedPotential
from psiflow_core.processes.guard import lives
from psiflow_core.structures import digest, from_plain

LABELS, TESTS, ATOMS = 40, 2, 2
"""What each campaign labels: for its budget, to test, and isolated atoms."""

MARK = "PSIFLOW_CHAOS"
"""The environment variable by which all processes of a campaign are known."""

PAUSE = {"driver": (0.5, 12.0), "worker": (0.0, 6.0), "manager": (0.0, 6.0), "interchange": (0.0, 6.0)}
"""Between two kills, by what the second one hits, an even distribution. [s]"""

AIMED, AIM, REACH = 0.5, 30.0, 0.6
"""This fraction of the kills waits, no longer than so, until a label begins or ends, and falls within so long. [s]"""

LEAVE = 20.0
"""How long processes may take to notice that their driver is dead, and to end. [s]"""

PATIENCE = 600.0
"""How long a driver may run undisturbed; one that takes longer is stuck. [s]"""


def learning(log: Path, seed: int) -> psiflow.OnlineLearning:
    """MACE, as small as it gets, learns a reference that takes a third of a second."""
    parameters = {"log": str(log), "delay": 0.3}
    return psiflow.OnlineLearning(
        potential=psiflow.potential("mace", num_channels=4, max_ell=1, r_max=4.0),
        sampler=psiflow.sampler("ase", temperature=600.0),
        reference=psiflow.reference("ase", calculator="psiflow_toys.counted:Counted", parameters=parameters),
        walkers=3,
        committee=2,
        seed=seed,
        schedule="sequential" if seed % 2 else "concurrent",
        budget=psiflow.Budget(labels=LABELS),
        bootstrap=psiflow.Bootstrap(structures=6),
        training=psiflow.Training(steps=20, warm_steps=10, final_steps=10),
        selection=psiflow.selection("uncertain", threshold=0.0),  # every segment has something to label
        walking=psiflow.Walking(
            segment=psiflow.Segments(steps=20),
            limits=psiflow.Limits(deviation=100.0, lost=1e4, force=1e5),  # the network has seen next to nothing
        ),
    )


def run_campaign(folder: Path, seed: int) -> None:
    """The driver: start the campaign, or go on with it."""
    tests = [molecule("H2O") for _ in range(TESTS)]
    for number, atoms in enumerate(tests):
        atoms.rattle(0.05, seed=number)
    with psiflow.Context(psiflow.executor("local", workers=2)) as context:
        learning(folder / "log", seed).run(
            molecule("H2O"), folder / "campaign", context=context, test=tests, progress=False
        )


class Campaign:
    """One campaign under fire, and what is known of its labels."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.mark = f"{folder}-{seed}"
        self.log = folder / "log"
        self.unwritten: set[tuple[int, float, str]] = set()
        """Computations that had ended, but were not on disk when their process was killed."""
        self.driver: subprocess.Popen[bytes] | None = None
        self.hit = False
        """Whether something was killed under the driver that runs."""
        folder.mkdir(parents=True)

    def start(self) -> None:
        """Start a driver. What it says goes to a file."""
        command = [sys.executable, __file__, "--run", str(self.folder), "--seed", str(self.seed)]
        environment = {**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"}
        self.hit = False
        with (self.folder / "said").open("ab") as said:
            self.driver = subprocess.Popen(command, env=environment, stdout=said, stderr=said)

    def ended(self, pause: float) -> bool:
        """Wait, and look at the labels meanwhile; returns whether the driver has ended by itself."""
        assert self.driver is not None
        deadline = time.monotonic() + pause
        while self.driver.poll() is None:
            self.observe()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def aim(self, random: Random) -> bool:
        """Wait for a label to begin or end, and a moment more; returns whether the driver has ended by itself."""
        lines, deadline = len(self.computations()), time.monotonic() + AIM
        while len(self.computations()) == lines and time.monotonic() < deadline:
            if self.ended(0.0):
                return True
        return self.ended(random.uniform(0.0, REACH))

    def observe(self) -> None:
        """Note computations whose process has died between their end and their label."""
        last = {(line["pid"], line["born"]): line for line in self.computations()}
        for (pid, born), line in last.items():
            if line["what"] == "finished" and not lives(pid, born) and line["structure"] not in self.stored():
                self.unwritten.add((pid, born, line["structure"]))

    def computations(self) -> list[dict[str, Any]]:
        """What the reference wrote down."""
        if not self.log.is_file():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stored(self) -> set[str]:
        """The structures whose labels are on disk."""
        files = (self.folder / "campaign" / "labels").glob("*/*.json")
        return {_structure(file) for file in files}

    def kill(self, what: str, random: Random) -> bool:
        """Kill a process of a kind; returns whether there was one."""
        found = list(self.of_kind(what))
        if not found:
            return False
        victim = random.choice(found)
        with_it = self.alive() if what == "driver" else []
        victim.kill()
        self.hit = True
        if what == "driver":
            assert self.driver is not None
            self.driver.wait()
            self.start()  # at once: it must get along with what is still there of the old one
            self.wait_for_end_of(with_it)
        return True

    def of_kind(self, what: str) -> Iterator[psutil.Process]:
        """The driver, or processes of its pool."""
        assert self.driver is not None
        if what == "driver":
            yield psutil.Process(self.driver.pid)
            return
        for process in self.alive():
            words = _words(process)
            if what == "interchange" and "HTEX interchange" in words:
                yield process
            if "psiflow_core.execution.blocks._node" in words and "psiflow_core.processes.guard" not in words:
                yield from {"manager": [process], "worker": _workers(process)}.get(what, [])

    def alive(self) -> list[psutil.Process]:
        """Every process that this campaign has started and that still runs."""
        marked = [process for process in psutil.process_iter() if _mark(process) == self.mark]
        children = [child for process in marked for child in _children(process)]  # some have overwritten their mark
        return list({process.pid: process for process in [*marked, *children]}.values())

    def wait_for_end_of(self, processes: list[psutil.Process]) -> None:
        deadline = time.monotonic() + LEAVE
        while any(runs(process) for process in processes):
            self.observe()
            left = [_words(process) for process in processes if runs(process)]
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)

    def gave_up(self) -> bool:
        """Whether a driver that ended has to be started again, because of what was killed around it.

        Raises:
            AssertionError: it ended in an error although nothing had been killed.
        """
        assert self.driver is not None
        if self.driver.returncode == 0:
            return False
        said = (self.folder / "said").read_text()
        assert self.hit, f"the driver failed although nothing was killed:\n{said[-4000:]}"
        assert "psiflow_core.errors." in said.splitlines()[-1], f"the driver failed:\n{said[-4000:]}"
        print(f"a driver gave up: {said.splitlines()[-1]}", flush=True)
        return True

    def audit(self) -> Counter[str]:
        """Hold computations against what the campaign has, and look whether all else is as it should be.

        Returns:
            Labels by what became of them.
        """
        self.wait_for_end_of(self.alive())
        recorded = read_campaign(self.folder / "campaign")
        state = recorded.state
        assert [event.number for event in recorded.events] == list(range(1, len(recorded.events) + 1))
        assert fold(recorded.events, recorded.settings) == state
        assert state.finished == "labels", f"the campaign ended with {state.finished}: {state.message}"
        for generation in state.generations:
            for model in generation.models:
                ModelFile(recorded.store.absolute(model.path), model.digest).verified()
        for file in recorded.store.models.glob("*.*"):
            assert file.name.startswith(".") or file_digest(file) == file.stem, f"{file} is not what its name says"
        TrainedPotential.load(recorded.store.potential).predict([molecule("H2O")])
        dataset = ase.io.read(self.folder / "campaign" / "dataset.xyz", index=":")
        assert len(dataset) == LABELS + TESTS, f"the data set has {len(dataset)} structures"
        labelled = {candidate.structure for candidate in state.candidates if candidate.status == "labelled"}
        assert len(labelled) == LABELS + TESTS + ATOMS
        atoms = {candidate.structure for candidate in state.of("atom")}
        return self.fates(
            labelled & self.stored() & ({atoms.info["psiflow_structure_hash"] for atoms in dataset} | atoms)
        )

    def fates(self, used: set[str]) -> Counter[str]:
        """Labels by what became of them, given those that the campaign has in all places."""
        lines = self.computations()
        begun, finished = (
            Counter(x["structure"] for x in lines if x["what"] == what) for what in ("begun", "finished")
        )
        unwritten = Counter(structure for _, _, structure in self.unwritten)
        written = finished - unwritten
        return Counter(
            {
                "computed": written.total(),
                "used": len(used & set(written)),
                "lost": len(set(written) - used),
                "twice": sum(times - 1 for times in written.values()),
                "in flight": (begun - finished).total() + unwritten.total(),
                "unwritten": unwritten.total(),
            }
        )


def _workers(manager: psutil.Process) -> list[psutil.Process]:
    """A manager's workers; the first process that it starts is none, but keeps its books."""
    started = [process for process in _children(manager) if "spawn_main" in _words(process)]
    return sorted(started, key=lambda process: process.create_time())[1:]


def _structure(file: Path) -> str:
    """The hash of a labelled structure; it is in no file by itself."""
    if file not in _known:
        _known[file] = digest(from_plain(json.loads(file.read_text())["structure"]))
    return _known[file]


_known: dict[Path, str] = {}


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK) if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children() if runs(child)]
    except psutil.Error:
        return []


def chaos(kills: int, seed: int, folder: Path) -> tuple[Counter[str], Counter[str], int]:
    """Campaigns until all kills are given; returns kills by what they hit, labels by fate, and campaigns."""
    random = Random(seed)
    ammunition = ["driver"] * (kills - kills // 2)
    ammunition += random.choices(["worker", "manager", "interchange"], [6, 1, 2], k=kills // 2)
    random.shuffle(ammunition)
    given: Counter[str] = Counter()
    fates: Counter[str] = Counter()
    number = 0
    while ammunition:
        before = len(ammunition)
        campaign = Campaign(folder / str(number), seed + number)
        campaign.start()
        try:
            under_fire(campaign, ammunition, given, random)
            fates += campaign.audit()
        finally:
            for process in campaign.alive():
                process.kill()
        assert len(ammunition) < before, f"a whole campaign had nothing to kill: {Counter(ammunition)} are not found"
        number += 1
        print(f"campaign {number} has ended, {len(ammunition)} kills to go: {dict(fates)}", flush=True)
    return given, fates, number


def under_fire(campaign: Campaign, ammunition: list[str], given: Counter[str], random: Random) -> None:
    """One campaign, from its start to its end."""
    while ammunition:
        what = ammunition[-1]
        aimed = random.random() < AIMED
        if campaign.ended(random.uniform(*PAUSE[what])) or (aimed and campaign.aim(random)):
            if not campaign.gave_up():
                return
            given["driver that gave up"] += 1
            campaign.start()
        elif campaign.kill(what, random):
            given[ammunition.pop()] += 1
    while True:
        assert campaign.ended(PATIENCE), f"the campaign in {campaign.folder} does not end"
        if not campaign.gave_up():
            return
        given["driver that gave up"] += 1
        campaign.start()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the campaigns; by default a new one, removed if all is well")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_campaign(options.run, options.seed)
        return 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="psiflow-chaos-"))
    print(f"seed {options.seed}, in {folder}", flush=True)
    given, fates, campaigns = chaos(options.kills, options.seed, folder)
    well = not fates["lost"] and not fates["twice"]
    if well and options.folder is None:
        shutil.rmtree(folder)
    kinds = {what: given[what] for what in PAUSE}
    named = ", ".join(f"{what} {times}" for what, times in kinds.items())
    print(
        f"kills: {sum(kinds.values())} ({named}) in {campaigns} campaigns; "
        f"drivers that gave up: {given['driver that gave up']}; "
        f"labels computed: {fates['computed']}, used: {fates['used']}, lost: {fates['lost']}, "
        f"computed twice: {fates['twice']}; in flight on a killed process: {fates['in flight']} "
        f"(of them computed but not yet on disk: {fates['unwritten']})"
    )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
