"""`psiflow failures` and `psiflow rerun`: every failure of a campaign, and one failed task again, alone."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from psiflow_core.components import Executor, Spec
from psiflow_core.environments import adopt, choose, elsewhere, names
from psiflow_core.errors import CampaignError, FileCorrupt, did_you_mean
from psiflow_core.files import read_sealed, write_sealed
from psiflow_core.learning.campaign import WORK, Failure, State
from psiflow_core.learning.dispatch import INPUT, PATHS, components_of
from psiflow_core.learning.records import Recorded, read_campaign
from psiflow_core.plugins import build
from psiflow_core.scratch import OUTPUT, last_words
from psiflow_core.served import ask_once
from psiflow_core.structures import Plain, digest, label_of
from psiflow_core.tasks import has_label, label_places, perform, read_label, read_walker

SHOWN = 100
"""Characters of a message in the table; `psiflow rerun` shows all of it, and the trace."""

VERBATIM = ("potential", "sampler", "reference", "structure")
"""Parts of a task's input that hold no path of the campaign's: changed, they would be another task's."""


@dataclass(frozen=True)
class Failed:
    """A failure, and where it happened."""

    failure: Failure
    about: Plain
    """What the task was about: candidate, walkers, generation."""
    walker: int | None
    """The walker, where not all of its task failed."""
    folder: Path | None
    """The task's; None where the journal does not know it."""
    unkept: str | None
    """Why the task's input is not in its folder, where the disk took no more."""


def listing(folder: Path, reason: str | None = None) -> RenderableType:
    """Every failure in a line, oldest first, then the command that runs each failed task alone.

    Raises:
        CampaignError: there is no campaign in the folder.
    """
    campaign = read_campaign(folder)
    every = failures(campaign)
    if not every:
        return Text(f"No task of the campaign in {campaign.store.folder} has failed.")
    found = [failed for failed in every if reason is None or reason in failed.failure.reason]
    if not found:
        known = sorted({failed.failure.reason for failed in every})
        return Text(
            f"No failure has the reason '{reason}'.{did_you_mean(reason or '', known)} Seen: {', '.join(known)}"
        )
    return Group(_table(campaign, found), *_commands(campaign, found))


def failures(campaign: Recorded) -> list[Failed]:
    """Every failure of the journal, those of single walkers among them, in the order in which they came."""
    about: dict[str, Plain] = {}
    places: list[tuple[int | None, Plain]] = []
    for event in campaign.events:
        if event.kind == "started":
            about[event.data["task"]] = event.data["about"]
        elif event.kind == "failed":
            places.append((None, event.data))
        elif event.kind == "sampled":
            told = [walker for walker in event.data["walkers"] if "failure" in walker]
            places += [(walker["walker"], walker["failure"]) for walker in told]
    return [
        Failed(failure, about[failure.task], walker, _folder(campaign, place), place.get("unkept"))
        for failure, (walker, place) in zip(campaign.state.failures, places, strict=True)
    ]


def rerun(folder: Path, task: str, show: Callable[[str], None]) -> bool:
    """Run a failed task alone, and show what comes of it; the journal is not touched.

    It runs in this process; where that lacks a component, in a process of an environment that has it.

    Returns:
        Whether it succeeded.

    Raises:
        CampaignError: there is no campaign in the folder, no such failure in it, or the task's input is not kept.
    """
    campaign = read_campaign(folder)
    failed = _find(campaign, task)
    kept = _read_input(failed)
    own = _own_folder(cast(Path, failed.folder))
    _adopt_as_then(campaign.state)
    needs, asks = components_of(kept["kind"], kept["input"])
    environment = choose(needs)
    where = f"environment '{environment.name}'" if environment.name else "this process"
    show(f"{task} ({_subject(campaign, failed)}) runs in {where}; its files: {own}")
    given = _apart(_rebased(kept["input"], kept["campaign"], campaign.store.folder), own, kept, campaign)
    given |= {"resources": _resources(campaign.state, kept["kind"]), "homes": elsewhere(asks, environment)}
    if environment.name:
        outcome = ask_once(environment.launch, {"do": "perform", "kind": kept["kind"], "task": given})
    else:
        outcome = perform(kept["kind"], given)
    lines = list(_told(outcome, given, campaign.state, failed))
    show("\n".join(lines))
    return not _traces(outcome) and "computed_by" not in outcome["value"]


def _own_folder(folder: Path) -> Path:
    own = folder / f"rerun-{uuid.uuid4().hex[:8]}"
    try:
        own.mkdir()
    except OSError as error:
        raise CampaignError(
            f"cannot write into {folder}: {error.strerror}; copy the campaign, and run the task in the copy"
        ) from error
    return own


def _folder(campaign: Recorded, place: Plain) -> Path | None:
    return campaign.store.absolute(place["folder"]) if "folder" in place else None


def _table(campaign: Recorded, found: list[Failed]) -> Table:
    table = Table("task", "kind", "of", "reason", "tried", "it said", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for failed in found:
        failure = failed.failure
        message = " ".join(failure.told.split())
        said = message if len(message) <= SHOWN else f"{message[: SHOWN - 1]}…"
        table.add_row(failure.task, failure.kind, _subject(campaign, failed), failure.reason, _tries(failed), said)
    return table


def _commands(campaign: Recorded, found: list[Failed]) -> Iterator[Text]:
    """One line for each task: the command, and its folder as a comment; it can be pasted into a shell."""
    yield Text("Each alone, with all of its trace (# where its files and logs are):", style="dim")
    last = {failed.failure.task: failed for failed in found}
    for task, failed in last.items():
        where = failed.folder or "not known: an older version wrote this journal"
        command = f"psiflow rerun {shlex.quote(str(campaign.store.folder))} {task}  # {where}"
        yield Text(command, no_wrap=True, overflow="ignore")
        for line in _behind(failed):
            yield Text(f"# {line}", no_wrap=True, overflow="ignore", style="dim")


def _behind(failed: Failed) -> Iterator[str]:
    """Where an exception was raised, and what the task printed last, with where the rest of it is."""
    failure = failed.failure
    if failure.where:
        yield f"{failure.type} at {failure.where}"
    said = last_words(failed.folder) if failed.folder else []
    if said:
        yield f"it printed ({failed.folder}/{OUTPUT}): {said[0]}"
        yield from said[1:]


def _tries(failed: Failed) -> str:
    times = "once" if failed.failure.attempts == 1 else f"{failed.failure.attempts} times"
    if not failed.failure.whole:
        return times
    return f"{times}, then again" if failed.failure.again else f"{times}, given up"


def _subject(campaign: Recorded, failed: Failed) -> str:
    """What failed: the candidate, the walker or the generation, with its structure."""
    about = failed.about
    if "candidate" in about:
        key = campaign.state.candidates[about["candidate"]].structure
        return f"candidate {about['candidate']}: {campaign.formula(key) or '(structure lost)'} {key[:8]}"
    if failed.walker is not None:
        return f"walker {failed.walker}{_beginning(campaign, failed)}"
    walkers = [f"walkers {', '.join(map(str, about['walkers']))}"] if "walkers" in about else []
    member = [f"member {about['member']}"] if "member" in about else []
    return ", ".join([*walkers, f"generation {about['generation']}", *member])


def _beginning(campaign: Recorded, failed: Failed) -> str:
    """The structure that a walker's segment began at, as far as it is still there."""
    try:
        kept = _read_input(failed)
        walkers = _rebased(kept["input"], kept["campaign"], campaign.store.folder)["walkers"]
        (plain,) = (one for one in walkers if one["walker"] == failed.walker)
        structure = read_walker(plain).structure
    except (CampaignError, FileCorrupt):
        return ""
    return f": {structure.get_chemical_formula()} {digest(structure)[:8]}"


def _find(campaign: Recorded, task: str) -> Failed:
    """The last failure of a task."""
    by_task = {failed.failure.task: failed for failed in failures(campaign)}
    if task in by_task:
        return by_task[task]
    known = ", ".join(by_task) or "none"
    started = any(event.kind == "started" and event.data["task"] == task for event in campaign.events)
    problem = f"'{task}' has not failed." if started else f"there is no task '{task}'.{did_you_mean(task, by_task)}"
    raise CampaignError(f"{problem} Failed tasks of {campaign.store.folder}: {known}")


def _read_input(failed: Failed) -> Plain:
    file = failed.folder / INPUT if failed.folder else None
    if file is None or not file.is_file():
        why = f" ({failed.unkept})" if failed.unkept else ""
        raise CampaignError(
            f"{failed.failure.task} cannot be run again: its input was not kept in {file or 'its folder'}{why}; "
            "run the campaign again, which makes a new one"
        )
    return _loaded(file)


def _loaded(file: Path) -> Plain:
    try:
        return read_sealed(file)
    except FileCorrupt as error:
        raise CampaignError(f"the task cannot be run again: {error}") from error


def _rebased(content: Any, before: str, now: Path) -> Any:
    """A task's input after its campaign's folder was moved."""
    if isinstance(content, list):
        return [_rebased(value, before, now) for value in content]
    if not isinstance(content, dict):
        return content
    paths = {name: _moved(content[name], before, now) for name in PATHS & content.keys()}
    inside = content.keys() - PATHS - set(VERBATIM)
    return content | paths | {name: _rebased(content[name], before, now) for name in inside}


def _moved(path: str, before: str, now: Path) -> str:
    return str(now / Path(path).relative_to(before)) if Path(path).is_relative_to(before) else path


def _apart(given: Plain, own: Path, kept: Plain, campaign: Recorded) -> Plain:
    """The input with everything that is written, but a label, in the folder of this one run."""
    changed: Plain = {"folder": str(own)}
    if kept["kind"] == "train":
        changed["weights"] = str(own / "models")
    if kept["kind"] == "sample":
        changed["candidates"] = str(own / "structures")
    if "manifest" in given:
        manifest = _loaded(Path(given["manifest"]))
        lists = {name: value for name, value in manifest.items() if isinstance(value, list)}
        now = campaign.store.folder
        files = {name: [_moved(file, kept["campaign"], now) for file in value] for name, value in lists.items()}
        write_sealed(own / "manifest.json", manifest | files)
        changed["manifest"] = str(own / "manifest.json")
    return given | changed


def _adopt_as_then(state: State) -> None:
    """Know the environments that the campaign's own script or file had adopted."""
    for home in state.opened[-1]["homes"]:
        if home["environment"] and home["environment"] not in names():
            adopt(home["environment"], home["launch"])


def _resources(state: State, kind: str) -> Plain:
    """What the pool that served such tasks last gives one of them."""
    work = next(work for name, work in WORK.items() if name == kind)
    for name, plain in state.opened[-1]["context"].items():
        if name == "all" or work in name.split("-"):
            return cast(Executor, build(Spec.from_plain(plain))).resources()._asdict()
    return {}


def _traces(outcome: Plain) -> list[str]:
    """Of the task, or of each walker that failed."""
    if outcome.get("failure"):
        return [outcome["failure"]["trace"]]
    told = outcome["value"].get("walkers", [])
    return [f"walker {one['walker']}:\n{one['failure']['trace']}" for one in told if "failure" in one]


def _told(outcome: Plain, given: Plain, state: State, failed: Failed) -> Iterator[str]:
    traces = _traces(outcome)
    yield from traces
    printed = Path(given["folder"]) / OUTPUT
    if printed.is_file():
        yield f"What it printed is in {printed}."
    if traces:
        yield f"It failed again, after {outcome['seconds']:.1f} s."
        return
    if "computed_by" in outcome["value"]:
        yield f"It was not run: {outcome['value']['computed_by']} is computing this very label."
        return
    yield f"It succeeded, in {outcome['seconds']:.1f} s."
    if failed.failure.kind == "label":
        yield from _label(given, outcome["value"]["cached"])
        yield _use(state, failed)
        return
    shown = {name: value for name, value in outcome["value"].items() if name != "history"}
    yield json.dumps(shown, indent=1)
    yield "The campaign does not know of this: it makes its own attempt when it goes on."


def _label(given: Plain, cached: bool) -> Iterator[str]:
    files = label_places(given)
    file = next(filter(has_label, files), files[0])
    labelled, _ = read_label(file)
    found = label_of(labelled)
    largest = float(np.linalg.norm(found.forces, axis=1).max())
    yield f"energy {found.energy!r} eV, largest force {largest:.6g} eV/Å"
    yield f"label  {file}{' (it was there already)' if cached else ''}"


def _use(state: State, failed: Failed) -> str:
    waits = state.finished == "failed" or failed.failure.task in (task.id for task in state.again)
    if waits or state.candidates[failed.about["candidate"]].status in ("queued", "labelling"):
        return "The next run of the campaign finds it there."
    return (
        "The next run that asks for this label finds it there; this campaign has given the candidate up, "
        "and asks for it again only after it ended as failed."
    )
