"""The terminal output of the command."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.text import Text

from psiflow_core.report.outlet import Terminal


def stdout() -> Console:
    """The terminal. If output goes elsewhere, lines are wide enough for tables to be read and searched."""
    console = Terminal()
    return console if console.is_terminal else Terminal(width=140)


def show(what: RenderableType) -> None:
    """Print it. Plain text is printed as it is and its lines are never broken, so that paths can be copied."""
    text = Text(what) if isinstance(what, str) else what
    stdout().print(text, soft_wrap=isinstance(text, Text), crop=False)
