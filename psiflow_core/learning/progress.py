"""The campaign in the terminal: drawn from the state alone, while it runs and afterwards."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from psiflow_core.learning.campaign import Candidate, Generation, State, WalkerRecord
from psiflow_core.learning.settings import Settings

SHOWN_WALKERS = 16
"""Walkers that have a line of their own; of more, the rest is counted."""


class Progress:
    """Shows the state as it changes; where there is no terminal, a line for every generation."""

    def __init__(self, wanted: bool, console: Console | None = None) -> None:
        self._wanted = wanted
        self._console = console or Console()

    @contextlib.contextmanager
    def showing(self, state: State, settings: Settings, folder: Path) -> Iterator[Callable[[str], None]]:
        """A function to call after every change, with a word on what happens before there is a state."""
        if not self._wanted:
            yield lambda message: None
        elif self._console.is_terminal:
            with Live(console=self._console, refresh_per_second=4, transient=False) as live:
                yield lambda message: live.update(overview(state, settings, folder, message))
        else:
            yield _Lines(state, settings, folder).show


class _Lines:
    """For logs: one line whenever a generation is trained or a tenth of the labels has come."""

    def __init__(self, state: State, settings: Settings, folder: Path) -> None:
        self._state = state
        self._settings = settings
        self._last: tuple[int, int, str | None] | None = None
        print(f"campaign {folder}", file=sys.stderr)

    def show(self, message: str) -> None:
        state, budget = self._state, self._settings.budget.labels
        done = state.count("labelled")
        newest = state.newest
        key = (newest.number if newest else -1, 10 * done // budget, state.finished)
        if key == self._last and not message:
            return
        self._last = key
        error = f", generation {newest.number}: {_errors(newest)}" if newest else ""
        text = message or f"{done}/{budget} labels, {state.count('failed')} failed{error}"
        print(f"[{clock(state.elapsed)}] {text}", file=sys.stderr, flush=True)


def overview(state: State, settings: Settings, folder: Path, message: str = "", driven: bool = True) -> RenderableType:
    """Where a campaign stands: labels, generations, walkers, failures, time.

    Args:
        message: a word on what happens before there is a state to tell it.
        driven: whether a driver is at work; without one an unfinished campaign's clock stands still.
    """
    parts: list[RenderableType] = [_labels(state, settings), _generations(state, settings)]
    if state.walkers and state.generations:
        parts.append(_walkers(state))
    if state.failures:
        parts.append(_failures(state))
    parts.append(_time(state, settings, message or ("" if driven else "interrupted"), driven))
    return Panel(Group(*parts), title=f"psiflow · {folder.name}", title_align="left", width=100)


def phase(state: State) -> str:
    """What a campaign is doing, in a few words."""
    if state.finished == "failed":
        return "gave up"
    if state.finished:
        return "finished"
    if state.closing:
        return "final training" if state.runs("train") else "testing"
    if not state.generations:
        return "labelling isolated atoms and the first structures" if state.candidates else "starting"
    doing = {"sample": "sampling", "label": "labelling", "train": "training"}
    return ", ".join(word for kind, word in doing.items() if any(t.kind == kind for t in state.running.values()))


def walker_phase(walker: WalkerRecord, state: State) -> str:
    """What a walker is doing."""
    if any(walker.id in task.about["walkers"] for task in state.runs("sample")):
        return "sampling"
    if walker.waiting_for is not None:
        waits: dict[str, str] = {"queued": "candidate queued", "labelling": "candidate in labelling"}
        return waits.get(state.candidates[walker.waiting_for].status, "waiting for a model")
    return "idle" if state.finished is None else "at rest"


def clock(seconds: float) -> str:
    """A time span as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def forecast(state: State, settings: Settings) -> float | None:
    """Seconds until the budget of labels is spent, at the pace so far; None before there is one. [s]"""
    done = state.count("labelled")
    if not done or state.closing:
        return None
    return state.elapsed / done * (settings.budget.labels - done)


def _labels(state: State, settings: Settings) -> RenderableType:
    done, budget = state.count("labelled"), settings.budget.labels
    tests = state.of("test")
    row = Table.grid(padding=(0, 2))
    counts = Text.assemble(
        ("labels ", "bold"),
        f"{done}/{budget}",
        f"  running {state.count('labelling')}",
        f"  queued {state.count('queued')}",
        (f"  failed {state.count('failed')}", "red" if state.count("failed") else ""),
        f"  test {_done(tests)}/{len(tests)}" if tests else "",
    )
    row.add_row(ProgressBar(total=budget, completed=done, width=30), counts)
    return row


def _done(candidates: list[Candidate]) -> int:
    return sum(1 for candidate in candidates if candidate.status == "labelled")


def _generations(state: State, settings: Settings) -> RenderableType:
    newest, training = state.newest, state.in_training
    text = Text.assemble(("model  ", "bold"))
    if newest is None and training is None:
        text.append("none yet")
    if newest is not None:
        text.append(f"generation {newest.number} of {newest.known} labels: {_errors(newest)}")
    if training is not None:
        done, members = len(training.members), settings.committee
        text.append(f"  [training generation {training.number}: {done}/{members} members]")
    return text


def _errors(generation: Generation) -> str:
    if not all("force_rmse" in member["errors"] for member in generation.members.values()):
        return "as given"
    force, energy = generation.mean_error("force_rmse"), generation.mean_error("energy_rmse")
    return f"validation RMSE {1e3 * force:.0f} meV/Å, {1e3 * energy:.1f} meV/atom"


def _walkers(state: State) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("walker", "phase", "segment", "steps", "T [K]", "model", "resets"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for walker in state.walkers[:SHOWN_WALKERS]:
        table.add_row(
            str(walker.id),
            walker_phase(walker, state),
            str(walker.segments),
            str(walker.steps),
            "" if walker.temperature is None else f"{walker.temperature:.0f}",
            "" if walker.generation is None else str(walker.generation),
            str(walker.resets.total() or ""),
        )
    rest = Counter(walker_phase(walker, state) for walker in state.walkers[SHOWN_WALKERS:])
    if rest:
        table.add_row("…", ", ".join(f"{count} {name}" for name, count in rest.items()))
    return table


def _failures(state: State) -> RenderableType:
    reasons = Counter(f"{failure.kind}: {failure.reason}" for failure in state.failures)
    listed = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return Text.assemble(("failures ", "bold red"), listed)


def _time(state: State, settings: Settings, message: str, driven: bool) -> RenderableType:
    running = driven and bool(state.time) and state.finished is None
    elapsed = state.elapsed + (max(0.0, time.time() - state.time) if running else 0.0)
    remaining = forecast(state, settings) if running else None
    text = Text.assemble(("time   ", "bold"), clock(elapsed))
    if remaining is not None:
        text.append(f", about {clock(remaining)} to the last label")
    text.append(f"   {message or phase(state)}", style="italic")
    if state.finished:
        text.append(f": {state.message}")
    return text
