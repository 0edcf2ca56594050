"""The campaign in the terminal: drawn from the state alone, while it runs and afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import log
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from psiflow_core.journal import since
from psiflow_core.learning.campaign import Candidate, Generation, State, WalkerRecord
from psiflow_core.learning.settings import Settings
from psiflow_core.terminal import Outlet, Terminal
from psiflow_core.texts import sound

SHOWN_WALKERS = 16
"""Walkers that have a line of their own; of more, the rest is counted."""

BAR = 30
"""Characters of the bar of labels."""

RECENT = 20
"""Labels of walkers whose pace is taken for that of those to come."""

FEWEST = 10
"""Labels of walkers before which nothing is forecast."""


class Progress:
    """Shows the state as it changes; where there is no terminal, a line for every generation."""

    def __init__(self, wanted: bool, console: Console | None = None) -> None:
        self._wanted = wanted
        self._console = console or Terminal()

    @contextlib.contextmanager
    def showing(self, state: State, settings: Settings, folder: Path) -> Iterator[Callable[[str], None]]:
        """A function to call after every change, with a word on what happens before there is a state."""
        if not self._wanted:
            yield lambda message: None
        elif self._console.is_terminal:
            with Live(console=self._console, refresh_per_second=4, transient=False) as live:
                pace = Pace(state)

                def show(message: str) -> None:
                    pace.look()
                    live.update(overview(state, settings, folder, message, times=pace.times))

                yield show
        else:
            yield _Lines(state, settings, folder).show


class Pace:
    """When the labels of walkers came, since the display began to look."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known = self._labels()
        self.times: list[float] = []
        """Of one label after the other. [s since the epoch]"""

    def look(self) -> None:
        """Take the time of what is new."""
        now = self._labels()
        self.times += [self._state.time] * (now - self._known)
        self._known = now

    def _labels(self) -> int:
        return self._state.count("labelled", ["walker"])


class _Lines:
    """For logs: a line for a message, a training's begin and end, and each tenth of the labels and of the tests."""

    def __init__(self, state: State, settings: Settings, folder: Path) -> None:
        self._state = state
        self._settings = settings
        self._said: set[str] = set()
        self._outlet = Outlet(sys.stderr)
        self._write(f"campaign {folder}")

    def show(self, message: str) -> None:
        """Say what has not been said."""
        news = {message: message} if message else {}
        if self._state.running or not message:
            news |= self._news()
        for event, text in news.items():
            if event not in self._said:
                self._said.add(event)
                self._say(text)

    def _say(self, text: str) -> None:
        self._write(f"[{clock(self._state.elapsed)}] {text}")

    def _write(self, line: str) -> None:
        self._outlet.write(f"{sound(line)}\n")
        self._outlet.flush()

    def _news(self) -> dict[str, str]:
        """Lines by what they tell of: each is said but once."""
        news = self._trainings() | self._labels()
        if self._state.finished:
            news["end"] = f"{phase(self._state)}: {self._state.message}"
        return news

    def _trainings(self) -> dict[str, str]:
        news = {}
        newest, begun = self._state.newest, self._state.in_training
        if newest is not None:
            news[f"trained {newest.number}"] = f"generation {newest.number} is trained: {_errors(newest)}"
        if begun is not None:
            final = "final training: " if begun.final else "training "
            news[f"begun {begun.number}"] = f"{final}generation {begun.number} with {begun.known} labels"
        return news

    def _labels(self) -> dict[str, str]:
        state, budget, tests = self._state, self._settings.budget.labels, self._state.of("test")
        done, tested = state.count("labelled"), _done(tests)
        news = {f"labels {10 * done // budget}": f"{done}/{budget} labels, {state.count('failed')} failed"}
        if tested:
            news[f"tests {10 * tested // len(tests)}"] = f"{tested}/{len(tests)} test labels"
        return news


def overview(
    state: State,
    settings: Settings,
    folder: Path,
    message: str = "",
    driven: bool = True,
    times: Sequence[float] = (),
) -> RenderableType:
    """Where a campaign stands: labels, generations, walkers, failures, time.

    Args:
        message: a word on what happens before there is a state to tell it.
        driven: whether a driver is at work; without one an unfinished campaign's clock stands still.
        times: when the latest labels of walkers came, for a forecast. [s since the epoch]
    """
    under_way = driven and state.finished is None
    parts: list[RenderableType] = [_labels(state, settings, driven), _generations(state, settings, under_way)]
    if state.walkers and state.generations:
        parts.append(_walkers(state, driven))
    if state.failures:
        parts.append(_failures(state))
    remaining = _remaining(state, settings, times)
    parts.append(_time(state, message or ("" if driven else "interrupted"), remaining, under_way))
    return Panel(Group(*parts), title=Text(f"psiflow · {folder.name}"), title_align="left", width=100)


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


def walker_phase(walker: WalkerRecord, state: State, driven: bool = True) -> str:
    """What a walker is doing; without a driver, what it will do when there is one again."""
    if state.finished is not None:
        return "at rest"
    if any(walker.id in task.about["walkers"] for task in state.runs("sample")):
        return "sampling" if driven else "segment cut off"
    if walker.waiting_for is not None:
        labelling = "candidate in labelling" if driven else "candidate's label cut off"
        waits: dict[str, str] = {"queued": "candidate queued", "labelling": labelling}
        return waits.get(state.candidates[walker.waiting_for].status, "waiting for a model")
    return "idle" if walker.settled is None else "at its minimum"


def clock(seconds: float) -> str:
    """A time span as h:mm:ss."""
    whole = int(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def forecast(times: Sequence[float], known: int, budget: int, trained: float = 0.0) -> float | None:
    """Seconds until the budget of labels is spent, at the pace of the latest ones; None before they have one. [s]

    A training is due when the labels have grown by a fraction: its share of the time goes with their logarithm.

    Args:
        times: when labels of walkers came: those of the bootstrap come faster, for they wait for no training. [s]
        known: labels that there are.
        trained: fraction of the workers' time that went into training.
    """
    recent = times[-RECENT:]
    if len(recent) < FEWEST or known >= budget:
        return None
    first = known - len(recent) + 1
    by_number = (budget - known) / (known - first)
    by_growth = log(budget / known) / log(known / first)
    return (recent[-1] - recent[0]) * (trained * by_growth + (1 - trained) * by_number)


def _remaining(state: State, settings: Settings, times: Sequence[float]) -> float | None:
    if state.closing is not None:
        return None
    trained = state.busy["train"] / max(state.busy.total(), 1e-9)
    return forecast(times, state.count("labelled"), settings.budget.labels, trained)


def _labels(state: State, settings: Settings, driven: bool) -> RenderableType:
    done, budget = state.count("labelled"), settings.budget.labels
    tests = state.of("test")
    row = Table.grid(padding=(0, 2))
    counts = Text.assemble(
        ("labels ", "bold"),
        f"{done}/{budget}",
        "" if state.finished else f"  {'in labelling' if driven else 'cut off'} {state.count('labelling')}",
        "" if state.finished else f"  queued {state.count('queued')}",
        (f"  failed {state.count('failed')}", "red" if state.count("failed") else ""),
        f"  test {_done(tests)}/{len(tests)}" if tests else "",
    )
    row.add_row(bar(done, budget), counts)
    return row


def bar(done: int, total: int) -> Text:
    """How much is done; told apart from the rest without colour."""
    full = min(BAR, BAR * done // total)
    return Text.assemble(("█" * full, "green"), ("░" * (BAR - full), "dim"))


def _done(candidates: list[Candidate]) -> int:
    return sum(1 for candidate in candidates if candidate.status == "labelled")


def _generations(state: State, settings: Settings, under_way: bool) -> RenderableType:
    newest, training = state.newest, state.in_training
    text = Text.assemble(("model  ", "bold"))
    if newest is None and training is None:
        text.append("none yet")
    if newest is not None:
        text.append(f"generation {newest.number} of {newest.known} labels: {_errors(newest)}")
    if training is not None:
        done, members = len(training.members), settings.committee
        doing = "training" if under_way else "cut off in training"
        text.append(f"\n       {doing}: generation {training.number}, {done}/{members} members")
    return text


def _errors(generation: Generation) -> str:
    if not all("force_rmse" in member["errors"] for member in generation.members.values()):
        return "as given"
    force, energy = generation.mean_error("force_rmse"), generation.mean_error("energy_rmse")
    subset = "validation" if generation.validation else "training"
    whose = "members' " if generation.committee > 1 else ""
    return f"{whose}{subset} RMSE {1e3 * force:.0f} meV/Å, {1e3 * energy:.1f} meV/atom"


def _walkers(state: State, driven: bool) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("walker", "phase", "segment", "steps", "T [K]", "model", "resets"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for walker in state.walkers[:SHOWN_WALKERS]:
        table.add_row(
            str(walker.id),
            walker_phase(walker, state, driven),
            str(walker.segments),
            str(walker.steps),
            "" if walker.temperature is None else f"{walker.temperature:.0f}",
            "" if walker.generation is None else str(walker.generation),
            str(walker.resets.total()),
        )
    rest = Counter(walker_phase(walker, state, driven) for walker in state.walkers[SHOWN_WALKERS:])
    if rest:
        table.add_row("…", ", ".join(f"{count} {name}" for name, count in rest.items()))
    return table


def _failures(state: State) -> RenderableType:
    reasons = Counter(f"{failure.kind}: {failure.reason}" for failure in state.failures)
    listed = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return Text.assemble(("failures ", "bold red"), listed)


def _time(state: State, message: str, remaining: float | None, under_way: bool) -> RenderableType:
    running = under_way and bool(state.time)
    told = state.opened[-1].get("clock") if state.opened else None
    elapsed = state.elapsed + (since(state.time, told) if running else 0.0)
    text = Text.assemble(("time   ", "bold"), clock(elapsed))
    if running and remaining is not None:
        text.append(f", about {clock(remaining)} to the last label, then the final training")
    text.append(f"   {message or phase(state)}", style="italic")
    if state.finished:
        text.append(f": {state.message}")
    return text
