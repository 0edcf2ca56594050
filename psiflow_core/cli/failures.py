"""`psiflow failures` and `psiflow rerun`: list the failures of a campaign, and repeat one failed task alone."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from psiflow_core.components import Executor, Resources, Spec
from psiflow_core.environments.environment import Environment, adopt, choose, elsewhere, names
from psiflow_core.environments.process import ask_once
from psiflow_core.errors import CampaignError, FileCorrupt, did_you_mean
from psiflow_core.execution.scratch import OUTPUT, last_words
from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.perform import KINDS, perform
from psiflow_core.execution.tasks.request import Grant, Outcome, Request, Result, Work
from psiflow_core.execution.tasks.sample import Lost, Sampled, SamplingRequest
from psiflow_core.files import believing, read_sealed
from psiflow_core.labels.store import read_label
from psiflow_core.learning.driver.orders import REQUEST
from psiflow_core.learning.driver.request import Recorded, read_campaign
from psiflow_core.learning.machine.events import Started
from psiflow_core.learning.machine.state import State, TaskFailure
from psiflow_core.learning.machine.tasks import About, Labelling, MemberTraining, Sampling
from psiflow_core.registry.plugins import build
from psiflow_core.structures import Plain, digest, label_of

SHOWN = 100
"""How much of a message the table shows; `psiflow rerun` shows all of it, and the trace. [characters]"""


@dataclass(frozen=True)
class Failed:
    """A failure and the folder of its task."""

    failure: TaskFailure
    folder: Path
    """The task's folder."""

    @property
    def about(self) -> About:
        """The subject of the task."""
        return self.failure.of.about


def listing(folder: Path, reason: str | None = None) -> RenderableType:
    """All failures, one line each, oldest first; then the commands that run each failed task alone.

    Raises:
        CampaignError: there is no campaign in the folder.
    """
    campaign = read_campaign(folder)
    every = failures(campaign)
    if not every:
        return Text(f"No task of the campaign in {campaign.store.folder} has failed.")
    chosen = [failed for failed in every if reason is None or reason in failed.failure.reason]
    if not chosen:
        known = sorted({failed.failure.reason for failed in every})
        return Text(
            f"No failure has the reason '{reason}'.{did_you_mean(reason or '', known)} Reasons: {', '.join(known)}"
        )
    return Group(_table(campaign, chosen), *_commands(campaign, chosen))


def failures(campaign: Recorded) -> list[Failed]:
    """All failures in the journal, including those of single walkers, in the order of their occurrence."""
    store = campaign.store
    return [Failed(failure, store.absolute(failure.failed.folder)) for failure in campaign.state.failures]


def rerun(folder: Path, task: str, show: Callable[[str], None]) -> bool:
    """Run a failed task alone, and show its result; the journal does not change.

    It runs in this process. If this interpreter lacks a component, it runs in an environment that has it.

    Returns:
        Whether it succeeded.

    Raises:
        CampaignError: there is no campaign in the folder, the task has not failed, or its input was not kept.
    """
    campaign = read_campaign(folder)
    failed = _find(campaign, task)
    request = _read_request(failed, campaign)
    own = _own_folder(failed.folder)
    _adopt_as_then(campaign.state)
    environment = choose(request.needs)
    where = f"environment '{environment.name}'" if environment.name else "this process"
    show(f"{task} ({_subject(campaign, failed)}) runs in {where}; its files: {own}")
    apart = request.apart(own)
    grant = Grant(resources=_resources(campaign.state, request.pool), homes=elsewhere(request.asks, environment))
    outcome = _performed(task, apart, grant, environment)
    show("\n".join(_report(outcome, apart, campaign.state, failed)))
    return not _traces(outcome) and _computing(outcome) is None


def _performed(task: str, request: Request, grant: Grant, environment: Environment) -> Outcome:
    given: Plain = {"kind": request.kind, "request": request.to_plain(), "grant": grant.to_plain()}
    plain = ask_once(environment.launch, {"do": "perform", **given}) if environment.name else perform(**given)
    return Outcome.read(task, request, plain)


def _own_folder(folder: Path) -> Path:
    own = folder / f"rerun-{uuid.uuid4().hex[:8]}"
    try:
        own.mkdir()
    except OSError as error:
        raise CampaignError(
            f"cannot write into {folder}: {error.strerror}; copy the campaign and run the task in the copy"
        ) from error
    return own


def _table(campaign: Recorded, chosen: list[Failed]) -> Table:
    table = Table("task", "kind", "of", "reason", "tried", "message", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for failed in chosen:
        failure = failed.failure
        message = " ".join(failure.told.split())
        short = message if len(message) <= SHOWN else f"{message[: SHOWN - 1]}…"
        table.add_row(failure.task, failure.kind, _subject(campaign, failed), failure.reason, _tries(failed), short)
    return table


def _commands(campaign: Recorded, chosen: list[Failed]) -> Iterator[Text]:
    """One line for each task, which can be pasted into a shell: the command, and the task's folder as a comment."""
    yield Text("To repeat a task alone and see its whole trace (# the folder of its files and logs):", style="dim")
    last = {failed.failure.task: failed for failed in chosen}
    for task, failed in last.items():
        command = f"psiflow rerun {shlex.quote(str(campaign.store.folder))} {task}  # {failed.folder}"
        yield Text(command, no_wrap=True, overflow="ignore")
        for line in _behind(failed):
            yield Text(f"# {line}", no_wrap=True, overflow="ignore", style="dim")


def _behind(failed: Failed) -> Iterator[str]:
    """The place where an exception was raised, and the last output of the task with the file of the rest."""
    failure = failed.failure
    where, printed = failure.failed.failure.where, last_words(failed.folder)
    if where:
        yield f"{failure.type} at {where}"
    if printed:
        yield f"it printed ({failed.folder}/{OUTPUT}): {printed[0]}"
        yield from printed[1:]


def _tries(failed: Failed) -> str:
    times = "once" if failed.failure.attempts == 1 else f"{failed.failure.attempts} times"
    if failed.failure.walker is not None:
        return times
    return f"{times}, then again" if failed.failure.again else f"{times}, given up"


def _subject(campaign: Recorded, failed: Failed) -> str:
    """The subject of a failed task: the candidate, the walker or the generation, with its structure."""
    if failed.failure.walker is not None:
        return f"walker {failed.failure.walker}{_beginning(campaign, failed)}"
    match failed.about:
        case Labelling(candidate=number):
            key = campaign.state.candidates[number].structure
            return f"candidate {number}: {campaign.formula(key) or '(structure lost)'} {key[:8]}"
        case Sampling(walkers=walkers, generation=generation):
            return f"walkers {', '.join(map(str, walkers))}, generation {generation}"
        case MemberTraining(generation=generation, member=member):
            return f"generation {generation}, member {member}"
        case about:
            return f"generation {about.generation}"


def _beginning(campaign: Recorded, failed: Failed) -> str:
    """The structure at the beginning of a walker's segment; empty if it is lost."""
    try:
        request = cast(SamplingRequest, _read_request(failed, campaign))
        (start,) = (one for one in request.walkers if one.walker == failed.failure.walker)
        structure = start.set_off().structure
    except (CampaignError, FileCorrupt):
        return ""
    return f": {structure.get_chemical_formula()} {digest(structure)[:8]}"


def _find(campaign: Recorded, task: str) -> Failed:
    """The last failure of a task."""
    by_task = {failed.failure.task: failed for failed in failures(campaign)}
    if task in by_task:
        return by_task[task]
    known = ", ".join(by_task) or "none"
    started = any(isinstance(event.what, Started) and event.what.task.id == task for event in campaign.events)
    problem = f"'{task}' has not failed." if started else f"there is no task '{task}'.{did_you_mean(task, by_task)}"
    raise CampaignError(f"{problem} Failed tasks of {campaign.store.folder}: {known}")


def _read_request(failed: Failed, campaign: Recorded) -> Request:
    """The request of a failed task, with the present folder of a campaign that was moved."""
    file, unkept = failed.folder / REQUEST, failed.failure.failed.unkept
    if not file.is_file():
        why = f" ({unkept})" if unkept else ""
        raise CampaignError(
            f"{failed.failure.task} cannot be run again: its input was not kept in {file}{why}; "
            "run the campaign again, which makes a new task"
        )
    try:
        kept = read_sealed(file)
        with believing(file):
            request = KINDS[kept["kind"]].from_plain(kept["request"])
            return request.moved(Path(kept["campaign"]), campaign.store.folder)
    except FileCorrupt as error:
        raise CampaignError(f"the task cannot be run again: {error}") from error


def _adopt_as_then(state: State) -> None:
    """Adopt the environments that the campaign's script or file had adopted."""
    for home in state.opened[-1].homes:
        if home.environment and home.environment not in names():
            adopt(home.environment, home.launch)


def _resources(state: State, work: Work) -> Resources:
    """The resources of one such task in the pool that ran them last."""
    for name, plain in state.opened[-1].context.items():
        if name == "all" or work in name.split("-"):
            return cast(Executor, build(Spec.from_plain(plain))).resources()
    return Resources()


def _traces(outcome: Outcome) -> list[str]:
    """The trace of the task, or of each failed walker."""
    if outcome.failure is not None:
        return [outcome.failure.trace]
    walkers = outcome.value.walkers if isinstance(outcome.value, Sampled) else []
    return [f"walker {one.walker}:\n{one.failure.trace}" for one in walkers if isinstance(one, Lost)]


def _computing(outcome: Outcome) -> str | None:
    """The process that is computing the requested label; None if no other process is."""
    return outcome.value.computed_by if isinstance(outcome.value, Labelled) else None


def _report(outcome: Outcome, request: Request, state: State, failed: Failed) -> Iterator[str]:
    traces = _traces(outcome)
    yield from traces
    printed = request.own_folder / OUTPUT
    if printed.is_file():
        yield f"Its output is in {printed}."
    if traces:
        yield f"It failed again after {outcome.seconds:.1f} s."
        return
    if computing := _computing(outcome):
        yield f"It was not run: {computing} is computing the same label."
        return
    yield f"It succeeded in {outcome.seconds:.1f} s."
    yield from _succeeded(outcome, request, state, failed)


def _succeeded(outcome: Outcome, request: Request, state: State, failed: Failed) -> Iterator[str]:
    if isinstance(request, LabelRequest) and isinstance(outcome.value, Labelled):
        yield from _label(request.file, outcome.value.cached)
        yield _use(state, failed)
        return
    shown = cast(Result, outcome.value).model_dump(mode="json", exclude={"history"}, exclude_defaults=True)
    yield json.dumps(shown, indent=1)
    yield "The campaign does not use this result: it repeats the task itself when it continues."


def _label(file: Path, cached: bool) -> Iterator[str]:
    labelled, _ = read_label(file)
    label = label_of(labelled)
    largest = float(np.linalg.norm(label.forces, axis=1).max())
    yield f"energy {label.energy!r} eV, largest force {largest:.6g} eV/Å"
    yield f"label  {file}{' (it existed already)' if cached else ''}"


def _use(state: State, failed: Failed) -> str:
    waits = state.finished == "failed" or failed.failure.task in (task.id for task in state.again)
    about = failed.about
    if waits or (isinstance(about, Labelling) and state.candidates[about.candidate].status in ("queued", "labelling")):
        return "The next run of the campaign uses this label."
    return (
        "The next run that needs this label uses it. This campaign has given the candidate up: "
        "it needs the label again only after it has ended as failed."
    )
