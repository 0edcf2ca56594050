"""The command `psiflow`: what it offers, in one place; the work is done in the modules beside this one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from psiflow_core.cli import environments, labels
from psiflow_core.components import Kind
from psiflow_core.errors import PsiflowError
from psiflow_core.interruption import ends_in_order
from psiflow_core.terminal import Terminal, outlets
from psiflow_core.texts import sound

app = typer.Typer(
    name="psiflow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    suggest_commands=True,
)
app.add_typer(labels.app)
app.add_typer(environments.app)

Folder = Annotated[Path, typer.Argument(help="The campaign's folder.", show_default=False)]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        show(f"psiflow {version('psiflow-core')}")
        raise typer.Exit


@app.callback()
def psiflow(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Online learning of interatomic potentials."""


@app.command()
def plugins(
    name: Annotated[str | None, typer.Argument(help="A component, to see its options.", show_default=False)] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only components of this kind.", show_default=False)] = None,
) -> None:
    """List the components there are, here and in environments; with a NAME, the options of that one."""
    from psiflow_core.cli.components import options_of, overview

    show(overview(kind) if name is None else options_of(name, kind))


@app.command()
def options(
    name: Annotated[str | None, typer.Argument(help="A policy, such as Training.", show_default=False)] = None,
) -> None:
    """List the options of a campaign; with a NAME, those of one of its policies."""
    from psiflow_core.cli.components import options_of_policies

    show(options_of_policies(name))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The campaign, as YAML.", show_default=False)],
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Run the campaign that a YAML file describes, or go on with it.

    Its keys are the arguments of OnlineLearning, and beside them start,
    folder, test, data, model, labels, context and environments. A component
    is its name, or {name: …} with its options; an environment, by its name,
    a folder or a command. Paths count from the file's own folder.
    """
    from psiflow_core.cli.request import read_request

    request = read_request(file)
    try:
        result = request.run(progress=not quiet)
    except KeyboardInterrupt:
        show(f"Stopped. Nothing is lost: psiflow run {file} goes on.")
        raise typer.Exit(130) from None
    show(str(result))


@app.command()
def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until the campaign has ended.")] = False,
) -> None:
    """Tell where a campaign stands, also while it runs, and how to go on."""
    from psiflow_core.cli import standing

    if watch:
        standing.watch(folder, stdout())
    else:
        show(standing.picture(folder))


@app.command()
def failures(
    folder: Folder,
    reason: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Only failures with this word in their reason.", show_default=False),
    ] = None,
) -> None:
    """List every failure of a campaign, and how to run each failed task alone."""
    from psiflow_core.cli.failures import listing

    show(listing(folder, reason))


@app.command()
def rerun(
    folder: Folder,
    task: Annotated[str, typer.Argument(help="A failed task, as psiflow failures names it.", show_default=False)],
) -> None:
    """Run one failed task alone, in this process, and show what comes of it.

    The campaign stays as it is, and may be running. A label that succeeds
    goes into the label store.
    """
    from psiflow_core.cli.failures import rerun as run_again

    raise typer.Exit(0 if run_again(folder, task, show) else 1)


@app.command()
def report(
    folder: Folder,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the HTML report anew, of what is there so far."""
    from psiflow_core.report.page import write_report

    written = write_report(folder)
    show(str(written))
    if open_it:
        typer.launch(written.as_uri())


@app.command()
def doctor(
    potential: Annotated[str | None, typer.Option(help="Check this potential alone.", show_default=False)] = None,
    sampler: Annotated[str | None, typer.Option(help="Check this sampler alone.", show_default=False)] = None,
    reference: Annotated[str | None, typer.Option(help="Check this reference alone.", show_default=False)] = None,
    folder: Annotated[Path, typer.Option(help="Where the campaign will be.")] = Path(),
) -> None:
    """Check what a campaign needs, and name the fix for what is missing."""
    from psiflow_core.doctor import examine

    wanted: dict[Kind, str | None] = {"potential": potential, "sampler": sampler, "reference": reference}
    healthy = True
    for finding in examine(folder, {kind: name for kind, name in wanted.items() if name is not None}):
        show(finding.line())
        healthy = healthy and finding.verdict != "bad"
    raise typer.Exit(0 if healthy else 1)


def stdout() -> Console:
    """The terminal; where there is none, lines are wide enough for tables to be read and searched."""
    console = Terminal()
    return console if console.is_terminal else Terminal(width=140)


def show(what: RenderableType) -> None:
    """Print it; lines of plain text are taken as they are and never broken, so that paths can be copied."""
    text = Text(what) if isinstance(what, str) else what
    stdout().print(text, soft_wrap=isinstance(text, Text), crop=False)


def _warned(message: Warning | str, *where: object, **more: object) -> None:
    """A warning as one line, without the line of code that gave it."""
    Terminal(sys.stderr).print(Text(f"warning: {sound(str(message))}", style="yellow"), soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. What a user can be told is one line, never a traceback."""
    with outlets():
        try:
            with warnings.catch_warnings(), ends_in_order():
                warnings.showwarning = _warned
                app(None if arguments is None else list(arguments))
        except PsiflowError as error:
            Terminal(sys.stderr).print(Text(f"error: {error}", style="bold red"), soft_wrap=True)
            sys.exit(1)
