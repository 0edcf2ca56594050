"""`psiflow rehearse`: a whole campaign in small, with a cheap reference, on the pools of the expensive one."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ase import Atoms

from psiflow_core.checks import closest_pair
from psiflow_core.cli.machine import Finding
from psiflow_core.cli.request import Request, read_request
from psiflow_core.components import Spec
from psiflow_core.environments import catalogue
from psiflow_core.errors import CampaignError, PsiflowError
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.check import CheckRequest
from psiflow_core.labels.given import structures
from psiflow_core.learning.driver.request import Recorded, read_campaign
from psiflow_core.learning.machine.events import Failed, Labelled, Sampled, TaskEnded, Trained
from psiflow_core.learning.policies.stopping import Budget
from psiflow_core.online import OnlineLearning
from psiflow_core.structures import charge_of, species

FEW = 12
"""Labels of a rehearsal, unless it is told otherwise."""

SHORT = 50
"""The most gradient steps of a training."""

TESTS = 3
"""The most test structures."""

EMT = {"H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"}
"""The elements of ASE's effective-medium theory."""

WORDS: dict[type[TaskEnded], tuple[str, str]] = {
    Trained: ("train", "trainings"),
    Sampled: ("sample", "segments"),
    Labelled: ("label", "labels"),
}
"""The kind of work of a task that has ended, and its name in the plural."""


@dataclass(frozen=True)
class Lessons:
    """What a rehearsal has shown, and what it could not show."""

    tried: Sequence[Finding]
    left_out: Sequence[Finding]


@dataclass(frozen=True)
class Rehearsal:
    """A campaign in small, ready to be run."""

    given: Request
    """The campaign that is rehearsed."""
    small: Request
    start: Sequence[Atoms]
    test: Sequence[Atoms]

    @property
    def folder(self) -> Path:
        return self.small.paths["folder"]

    @property
    def stand_in(self) -> str:
        """The name of the calculator in the place of the reference."""
        return str(self.small.learning.reference.options["calculator"])

    def run(self, progress: bool, tell: Callable[[str], None]) -> Lessons:
        """Run it, and find what it has tried, and what it has not.

        Args:
            tell: called with a text while workers are waited for.
        """
        described = self.given.context
        with Context(described.everything, **{"folder": self.folder, **described.arguments}) as context:
            own = self._own_reference(context, tell)
            broke = ""
            try:
                self.small.run_on(context, progress, test=self.test)
            except PsiflowError as error:
                broke = str(error)
            capacity = context.capacity
        tried = [*self._done(broke), *([own] if own.verdict == "bad" else [])]
        left = [*([] if own.verdict == "bad" else [own]), *self._left_out(sum(capacity.slots.values()))]
        return Lessons(tried, left)

    def _own_reference(self, context: Context, tell: Callable[[str], None]) -> Finding:
        """Whether the campaign's own reference starts on its pool, and accepts the structures."""
        spec = catalogue.settled(self.given.learning.reference)
        called = f"reference {spec.name}"
        failure = context.run(CheckRequest(component=spec, structures=tuple(self.start)), tell=tell).failure
        if failure is not None:
            fix = f"repair it, and check it alone: psiflow doctor --reference {spec.name}"
            return Finding("bad", called, failure.message, fix)
        return Finding("open", called, "starts on its pool and accepts the structures; no label of it was tried")

    def _done(self, broke: str) -> Iterator[Finding]:
        """What has run, and where; and why it ended early."""
        try:
            campaign = read_campaign(self.folder)
        except CampaignError as error:
            yield Finding("bad", "campaign", broke or str(error), "repair this, and rehearse again")
            return
        yield from _by_work(campaign)
        message = broke or (campaign.state.message if campaign.state.finished == "failed" else "")
        if message:
            fix = f"repair this, and rehearse again; to see all failures: psiflow failures {self.folder}"
            yield Finding("bad", "campaign", message, fix)
        else:
            yield Finding("good", "campaign", f"ran to its end: {campaign.state.message}")

    def _left_out(self, slots: int) -> Iterator[Finding]:
        """What a small campaign with another reference cannot show."""
        given = self.given
        yield Finding("open", "labels", f"their time, memory and failures: those here are of '{self.stand_in}'")
        steps = [one for one in (given.learning.training.steps, given.learning.training.final_steps) if one]
        longest = f"trainings of {max(steps)} steps" if steps else "trainings of full length"
        yield Finding("open", "length", f"{longest}, {given.learning.budget.labels} labels, models of that quality")
        for key in ("data", "model", "labels"):
            if key in given.paths:
                yield Finding("open", key, f"{given.paths[key]}: it belongs to the campaign's own reference")
        yield Finding("open", "load", f"all {slots} slots of the pools at once, and the queue at another time")


def prepare(file: Path, calculator: str | None, labels: int = FEW) -> Rehearsal:
    """The small campaign of a campaign's file.

    Args:
        calculator: an ASE calculator by its name; by default the best one that knows the elements.
        labels: the budget.

    Raises:
        as `read_request`; OptionError: there is no such calculator.
    """
    request = read_request(file)
    start = structures(request.paths["start"], "start")
    reference = stand_in(calculator, start)
    learning = _small(request.learning, reference, labels)
    test = structures(request.paths["test"], "test")[:TESTS] if "test" in request.paths else []
    paths = {"start": request.paths["start"], "folder": _free(request.paths["folder"])}
    return Rehearsal(request, replace(request, learning=learning, paths=paths, names={}), start, test)


def stand_in(calculator: str | None, start: Sequence[Atoms]) -> Spec:
    """The cheap reference. A Lennard-Jones potential gets its minimum at the shortest distance of the structures."""
    name = calculator or _known_best(start)
    parameters: dict[str, float] = {}
    if name == "lj":
        sigma = _shortest(start) / 2 ** (1 / 6)
        parameters = {"sigma": sigma, "rc": 3 * sigma}
    return catalogue.spec("reference", "ase", {"calculator": name, "parameters": parameters})


def _known_best(start: Sequence[Atoms]) -> str:
    if importlib.util.find_spec("tblite"):
        return "tblite"
    return "emt" if set(species(start)) <= EMT and not any(map(charge_of, start)) else "lj"


def _shortest(start: Sequence[Atoms]) -> float:
    """The shortest distance of two atoms. [Å]"""
    pairs = [closest_pair(one, 3.0) for one in start]
    return min((pair[0] for pair in pairs if pair is not None), default=2.0)


def _small(learning: OnlineLearning, reference: Spec, labels: int) -> OnlineLearning:
    """The campaign with few labels and short trainings; everything else is as it is."""
    training = learning.training
    steps = {name: min(getattr(training, name) or SHORT, SHORT) for name in ("steps", "warm_steps", "final_steps")}
    first = max(2, labels // 2)
    bootstrap = learning.bootstrap.model_copy(update={"structures": min(learning.bootstrap.structures or first, first)})
    changes = {
        "reference": reference,
        "budget": Budget(labels=labels),
        "bootstrap": bootstrap,
        "training": training.model_copy(update={**steps, "fewest": min(training.fewest, max(1, labels // 4))}),
        "stopping": learning.stopping.model_copy(update={"tolerated_failures": 1.0}),
    }
    return learning.model_copy(update=changes)


def _free(folder: Path) -> Path:
    """A folder beside the campaign's that does not exist yet."""
    number = 1
    while (found := folder.with_name(f"{folder.name}-rehearsal-{number}")).exists():
        number += 1
    return found


def _by_work(campaign: Recorded) -> Iterator[Finding]:
    """What has run, by the kind of work: how often, how long, where; and how often it failed."""
    ended: dict[str, list[TaskEnded]] = defaultdict(list)
    for event in campaign.events:
        what = event.what
        if isinstance(what, Trained | Sampled | Labelled):
            ended[WORDS[type(what)][0]].append(what)
    failed = [event.what for event in campaign.events if isinstance(event.what, Failed)]
    for work, words in WORDS.values():
        done = ended[work]
        hosts = sorted({one.worker.partition(":")[0] for one in done} - {""})
        if not done:
            yield Finding("bad", work, f"no {words}", "see the reason below")
            continue
        mean = sum(one.seconds for one in done) / len(done)
        yield Finding("good", work, f"{len(done)} {words}, {mean:.1f} s each, on {', '.join(hosts) or 'no worker'}")
    if failed:
        reasons = sorted({one.failed.failure.reason for one in failed})
        fix = f"to see them: psiflow failures {campaign.store.folder}"
        yield Finding("open", "failures", f"{len(failed)} tasks: {', '.join(reasons)}", fix)
