"""The campaign in the terminal: drawn from the state alone, while it runs and afterwards."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from psiflow_core.learning.driver.journal import since
from psiflow_core.learning.machine.generations import Generation
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import Sampling, TaskKind
from psiflow_core.learning.machine.walkers import WalkerRecord
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.report.outlet import Outlet, Terminal
from psiflow_core.report.times import Pace, clock, forecast
from psiflow_core.texts import sound

DRAWN_EVERY = 0.25
"""The least time between two pictures of the same message. [s]"""

SHOWN_WALKERS = 16
"""The number of walkers with a separate line; further walkers are counted together."""

BAR = 30
"""The width of the bar of labels. [characters]"""


class Progress:
    """Shows the state as it changes; without a terminal, as lines for a log."""

    def __init__(self, wanted: bool, console: Console | None = None) -> None:
        self._wanted = wanted
        self._console = console or Terminal()

    @contextlib.contextmanager
    def showing(self, state: State, settings: Settings, folder: Path) -> Iterator[Callable[[str], None]]:
        """A function to call after every change, with a message for the time before there is a state."""
        if not self._wanted:
            yield lambda message: None
        elif self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False) as live:
                picture = _Picture(live, state, settings, folder)
                try:
                    yield picture.show
                finally:
                    picture.draw()
        else:
            yield _Lines(state, settings, folder).show


class _Picture:
    """The state in a terminal, drawn a few times a second at most: a driver's turns are shorter."""

    def __init__(self, live: Live, state: State, settings: Settings, folder: Path) -> None:
        self._live = live
        self._state = state
        self._settings = settings
        self._folder = folder
        self._pace = Pace(state)
        self._message = ""
        self._drawn = -DRAWN_EVERY

    def show(self, message: str) -> None:
        self._pace.look()
        news = message != self._message
        self._message = message
        if news or time.monotonic() - self._drawn >= DRAWN_EVERY:
            self.draw()

    def draw(self) -> None:
        self._drawn = time.monotonic()
        times = self._pace.times
        self._live.update(overview(self._state, self._settings, self._folder, self._message, times=times), refresh=True)


class _Lines:
    """For logs: a line for each message, begin and end of a training, and tenth of the labels and of the tests."""

    def __init__(self, state: State, settings: Settings, folder: Path) -> None:
        self._state = state
        self._settings = settings
        self._said: set[str] = set()
        self._outlet = Outlet(sys.stderr)
        self._write(f"campaign {folder}")

    def show(self, message: str) -> None:
        """Write the lines that were not written yet."""
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
        """Lines by their event: each is written only once."""
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
        state, budget = self._state, self._settings.budget.labels
        done, (tested, tests) = state.count("labelled"), _tests(self._state)
        news = {f"labels {10 * done // budget}": f"{done}/{budget} labels, {state.count('failed')} failed"}
        if tested:
            news[f"tests {10 * tested // tests}"] = f"{tested}/{tests} test labels"
        return news


def overview(
    state: State,
    settings: Settings,
    folder: Path,
    message: str = "",
    driven: bool = True,
    times: Sequence[float] = (),
) -> RenderableType:
    """The state of a campaign: labels, generations, walkers, failures, time.

    Args:
        message: the current activity before there is a state.
        driven: whether a driver is running the campaign; without one, the clock of an unfinished campaign stands still.
        times: the times of the latest labels of walkers, for a forecast. [s since the epoch]
    """
    under_way = driven and state.finished is None
    parts: list[RenderableType] = [_labels(state, settings, driven), _generations(state, settings, under_way)]
    if state.walkers and state.generations:
        parts.append(_walkers(state, settings, driven))
    if state.failures:
        parts.append(_failures(state))
    remaining = _remaining(state, settings, times)
    parts.append(_time(state, message or ("" if driven else "interrupted"), remaining, under_way))
    return Panel(Group(*parts), title=Text(f"psiflow · {folder.name}"), title_align="left", width=100)


def phase(state: State) -> str:
    """The current activity of a campaign, in a few words."""
    if state.finished == "failed":
        return "gave up"
    if state.finished:
        return "finished"
    if state.closing:
        return "final training" if state.runs("train") else "testing"
    if not state.generations:
        return "labelling isolated atoms and the first structures" if state.candidates else "starting"
    doing: dict[TaskKind, str] = {"sample": "sampling", "label": "labelling", "train": "training"}
    return ", ".join(word for kind, word in doing.items() if state.runs(kind))


def moving_walkers(state: State) -> frozenset[int]:
    """The walkers with a running segment."""
    abouts = (task.about for task in state.runs("sample"))
    return frozenset(number for about in abouts if isinstance(about, Sampling) for number in about.walkers)


def walker_phase(walker: WalkerRecord, state: State, moving: Collection[int], driven: bool = True) -> str:
    """The current activity of a walker; without a driver, its activity after a restart.

    Args:
        moving: the walkers with a running segment.
    """
    if state.finished is not None:
        return "at rest"
    if walker.id in moving:
        return "sampling" if driven else "segment cut off"
    if walker.waiting_for is not None:
        labelling = "candidate in labelling" if driven else "candidate's label cut off"
        waits: dict[str, str] = {"queued": "candidate queued", "labelling": labelling}
        return waits.get(state.candidates[walker.waiting_for].status, "waiting for a model")
    return "idle" if walker.settled is None else "at its minimum"


def _remaining(state: State, settings: Settings, times: Sequence[float]) -> float | None:
    if state.closing is not None:
        return None
    trained = state.busy["train"] / max(state.busy.total(), 1e-9)
    return forecast(times, state.count("labelled"), settings.budget.labels, trained)


def _labels(state: State, settings: Settings, driven: bool) -> RenderableType:
    done, budget = state.count("labelled"), settings.budget.labels
    tested, tests = _tests(state)
    row = Table.grid(padding=(0, 2))
    counts = Text.assemble(
        ("labels ", "bold"),
        f"{done}/{budget}",
        "" if state.finished else f"  {'in labelling' if driven else 'cut off'} {state.count('labelling')}",
        "" if state.finished else f"  queued {state.count('queued')}",
        (f"  failed {state.count('failed')}", "red" if state.count("failed") else ""),
        f"  test {tested}/{tests}" if tests else "",
    )
    row.add_row(bar(done, budget), counts)
    return row


def bar(done: int, total: int) -> Text:
    """A progress bar that can be read without colours."""
    full = min(BAR, BAR * done // total)
    return Text.assemble(("█" * full, "green"), ("░" * (BAR - full), "dim"))


def _tests(state: State) -> tuple[int, int]:
    """The number of labelled test structures, and of all test structures."""
    return state.count("labelled", ["test"]), state.candidates.number_of("test")


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
    if not generation.assessed:
        return "as given"
    force, energy = generation.mean_error("force_rmse"), generation.mean_error("energy_rmse")
    subset = "validation" if generation.validation else "training"
    whose = "members' " if generation.committee > 1 else ""
    return f"{whose}{subset} RMSE {1e3 * force:.0f} meV/Å, {1e3 * energy:.1f} meV/atom"


def _walkers(state: State, settings: Settings, driven: bool) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    own = ("conditions",) if len(settings.groups) > 1 else ()
    for heading in ("walker", *own, "phase", "segment", "steps", "T [K]", "model", "resets"):
        table.add_column(heading, justify="left" if heading in ("phase", "conditions") else "right")
    moving = moving_walkers(state)
    for walker in state.walkers[:SHOWN_WALKERS]:
        table.add_row(
            str(walker.id),
            *(settings.groups[settings.group_of(walker.id)[0]].conditions for _ in own),
            walker_phase(walker, state, moving, driven),
            str(walker.segments),
            str(walker.steps),
            "" if walker.temperature is None else f"{walker.temperature:.0f}",
            "" if walker.generation is None else str(walker.generation),
            str(walker.resets.total()),
        )
    rest = Counter(walker_phase(walker, state, moving, driven) for walker in state.walkers[SHOWN_WALKERS:])
    if rest:
        table.add_row("…", *("" for _ in own), ", ".join(f"{count} {name}" for name, count in rest.items()))
    return table


def _failures(state: State) -> RenderableType:
    reasons = Counter(f"{failure.kind}: {failure.reason}" for failure in state.failures)
    listed = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return Text.assemble(("failures ", "bold red"), listed)


def _time(state: State, message: str, remaining: float | None, under_way: bool) -> RenderableType:
    running = under_way and bool(state.time)
    told = state.opened[-1].clock if state.opened else None
    elapsed = state.elapsed + (since(state.time, told) if running else 0.0)
    text = Text.assemble(("time   ", "bold"), clock(elapsed))
    if running and remaining is not None:
        text.append(f", about {clock(remaining)} to the last label, then the final training")
    text.append(f"   {message or phase(state)}", style="italic")
    if state.finished:
        text.append(f": {state.message}")
    return text
