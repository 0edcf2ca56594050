"""The command `psiflow` and its subcommands. The other modules of this folder do the work."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from psiflow_core.cli import environments, labels
from psiflow_core.cli.showing import show, stdout
from psiflow_core.errors import PsiflowError
from psiflow_core.kinds import Kind
from psiflow_core.processes.interruption import ends_in_order
from psiflow_core.report.outlet import Terminal, outlets
from psiflow_core.texts import sound

if TYPE_CHECKING:
    from psiflow_core.cli.machine import Finding

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
    """List the components, here and in environments. With a NAME, list the options of that component."""
    from psiflow_core.cli.components import options_of, overview

    show(overview(kind) if name is None else options_of(name, kind))


@app.command()
def options(
    name: Annotated[str | None, typer.Argument(help="A policy, such as Training.", show_default=False)] = None,
) -> None:
    """List the options of a campaign. With a NAME, list the options of that policy."""
    from psiflow_core.cli.components import options_of_policies

    show(options_of_policies(name))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The campaign, as YAML.", show_default=False)],
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Run or continue the campaign of a YAML file.

    Its keys are the arguments of OnlineLearning, and start, folder, test,
    data, model, labels, context and environments. A component is given as
    its name, or as {name: …} with its options. The context is a file, or
    the keys of one. An environment is given by its name as a folder or a
    command. Paths are relative to the file.
    """
    from psiflow_core.cli.request import read_request

    request = read_request(file)
    try:
        result = request.run(progress=not quiet)
    except KeyboardInterrupt:
        show(f"Stopped. Nothing is lost. To continue: psiflow run {file}")
        raise typer.Exit(130) from None
    show(str(result))


@app.command()
def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Update until the campaign has ended.")] = False,
) -> None:
    """Show the progress of a campaign, finished or running, and how to continue it."""
    from psiflow_core.cli.status import keep_showing, picture

    if watch:
        keep_showing(folder, stdout())
    else:
        show(picture(folder))


@app.command()
def failures(
    folder: Folder,
    reason: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Only failures with this word in their reason.", show_default=False),
    ] = None,
) -> None:
    """List every failure of a campaign, and the command that repeats the failed task."""
    from psiflow_core.cli.failures import listing

    show(listing(folder, reason))


@app.command()
def rerun(
    folder: Folder,
    task: Annotated[str, typer.Argument(help="A failed task, as psiflow failures names it.", show_default=False)],
) -> None:
    """Repeat one failed task in this process, and show its result.

    The campaign does not change, and may be running. A successful label is
    stored in the label store.
    """
    from psiflow_core.cli.failures import rerun as run_again

    raise typer.Exit(0 if run_again(folder, task, show) else 1)


@app.command()
def report(
    folder: Folder,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the HTML report of the results so far."""
    from psiflow_core.report.page import write_report

    written = write_report(folder)
    show(str(written))
    if open_it:
        typer.launch(written.as_uri())


@app.command()
def rehearse(
    file: Annotated[Path, typer.Argument(help="The campaign, as YAML.", show_default=False)],
    calculator: Annotated[
        str | None, typer.Option(help="The ASE calculator in the place of the reference.", show_default=False)
    ] = None,
    labels: Annotated[int, typer.Option(help="The budget of labels.", min=4)] = 12,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Run the campaign of a YAML file in small, to find what breaks.

    It runs on the campaign's own workers, with few labels by a cheap
    calculator, in a new folder beside the campaign's. Without --calculator
    it is tblite if that is installed, or else emt or lj. At the end it lists
    what it has tried, and what it has not.
    """
    from psiflow_core.cli.rehearsal import prepare

    rehearsal = prepare(file, calculator, labels)
    show(f"Rehearsal of {file} with calculator '{rehearsal.stand_in}' in {rehearsal.folder}")
    lessons = rehearsal.run(not quiet, _waiting)
    show("Tried:")
    healthy = _shown(lessons.tried)
    show("Not tried:")
    _shown(lessons.left_out)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def doctor(
    potential: Annotated[str | None, typer.Option(help="Check only this potential.", show_default=False)] = None,
    sampler: Annotated[str | None, typer.Option(help="Check only this sampler.", show_default=False)] = None,
    reference: Annotated[str | None, typer.Option(help="Check only this reference.", show_default=False)] = None,
    folder: Annotated[Path, typer.Option(help="Where the campaign will be.")] = Path(),
    context: Annotated[
        Path | None, typer.Option(help="Check the pools of this context, by a job on each.", show_default=False)
    ] = None,
    executor: Annotated[str | None, typer.Option(help="Check this executor, by a job.", show_default=False)] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of that executor: key=value.", show_default=False)
    ] = None,
) -> None:
    """Check the requirements of a campaign, and name the fix of each failed check.

    With --context or --executor: submit the smallest job to each pool, and
    show what its workers see. A queue is waited for; Ctrl-C cancels the jobs.
    """
    from psiflow_core.cli.diagnosis import examine
    from psiflow_core.cli.workers import described_by, examine_pools

    given: dict[Kind, str | None] = {"potential": potential, "sampler": sampler, "reference": reference}
    wanted = {kind: name for kind, name in given.items() if name is not None}
    pools = described_by(context, executor, option or [])
    healthy = _shown(examine(folder, wanted) if pools is None else examine_pools(pools, wanted, _waiting))
    raise typer.Exit(0 if healthy else 1)


def _shown(findings: Iterable[Finding]) -> bool:
    """Show findings as they come; returns whether none is bad."""
    healthy = True
    for finding in findings:
        show(finding.line())
        healthy = healthy and finding.verdict != "bad"
    return healthy


def _waiting(text: str) -> None:
    Terminal(sys.stderr).print(Text(text, style="dim"), soft_wrap=True)


def _warned(message: Warning | str, *where: object, **more: object) -> None:
    """Print a warning as one line, without its line of code."""
    Terminal(sys.stderr).print(Text(f"warning: {sound(str(message))}", style="yellow"), soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. An error of psiflow is shown in one line, without a traceback."""
    with outlets():
        try:
            with warnings.catch_warnings(), ends_in_order():
                warnings.showwarning = _warned
                app(None if arguments is None else list(arguments))
        except PsiflowError as error:
            Terminal(sys.stderr).print(Text(f"error: {error}", style="bold red"), soft_wrap=True)
            sys.exit(1)
