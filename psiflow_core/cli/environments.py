"""`psiflow env`: environments for plugins that cannot be installed together, made and looked after."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from psiflow_core.errors import EnvironmentUnfit, PsiflowError

if TYPE_CHECKING:
    from rich.table import Table

    from psiflow_core.environments import Environment
    from psiflow_core.installing import Installer, Step
    from psiflow_core.structures import Plain

app = typer.Typer(
    name="env",
    no_args_is_help=True,
    help="Have plugins in environments of their own, where they cannot be installed together.",
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="The environment's name.", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(help="Environments; all, if none is named.", show_default=False)]
Packages = Annotated[list[str] | None, typer.Argument(help="As pip takes them.", show_default=False)]
Editable = Annotated[
    list[str] | None,
    typer.Option("--editable", "-e", metavar="FOLDER", help="A package in development.", show_default=False),
]
Constraint = Annotated[
    list[str] | None,
    typer.Option("--constraint", "-c", metavar="FILE", help="Versions to keep to, as of pip.", show_default=False),
]


@app.command()
def create(
    name: Name,
    packages: Packages = None,
    editable: Editable = None,
    constraint: Constraint = None,
    installer: Annotated[
        str | None, typer.Option(metavar="uv|pip", help="uv where it is installed, else pip.", show_default=False)
    ] = None,
) -> None:
    """Make an environment, install packages in it, and record what it offers.

    It has the psiflow and the Parsl that this interpreter has. What was
    asked for is remembered, and done again by psiflow env update.
    """
    from typing import cast

    from psiflow_core import installing
    from psiflow_core.packages import words

    wanted = words(packages or [], editable or [], constraint or [])
    with _going_on("Nothing is left of it.") as step:
        made = installing.create(name, wanted, cast("Installer | None", installer), step)
    _tell(made)


@app.command()
def update(name: Name, packages: Packages = None, editable: Editable = None, constraint: Constraint = None) -> None:
    """Bring an environment up to date, with more packages if there are any, and record it anew.

    One that was adopted is only asked and recorded.
    """
    from psiflow_core import installing
    from psiflow_core.environments import known
    from psiflow_core.packages import words

    wanted = words(packages or [], editable or [], constraint or [])
    with _going_on(f"Do it again before it is used: psiflow env update {name}") as step:
        renewed = installing.update(known(name), wanted, step)
    _tell(renewed)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def adopt(
    name: Name,
    where: Annotated[
        list[str],
        typer.Argument(help="Its folder, its Python, or the words that start that.", show_default=False),
    ],
) -> None:
    """Record an environment that exists: a venv, a conda prefix, a container.

    psiflow env adopt gpu apptainer exec --nv /images/gpu.sif python

    Nothing is installed there: psiflow has to be there, in this version.
    """
    from psiflow_core import installing

    with _going_on("Nothing was recorded.") as step:
        adopted = installing.adopt(name, where, step)
    _tell(adopted)


@app.command(name="list")
def list_() -> None:
    """List the environments, and what each offers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from psiflow_core.cli import show
    from psiflow_core.environments import names, read

    if not names():
        show("There is none. psiflow env create NAME PACKAGE makes one.")
        return
    table = Table("name", "python", "where", "components", "whose", box=box.SIMPLE_HEAD)
    table.columns[2].overflow = "fold"
    for name in names():
        try:
            found = read(name)
        except EnvironmentUnfit as error:
            table.add_row(name, "", "", Text(error.found, style="bold red"), "")
            continue
        components = ", ".join(f"{one['component']['kind']} {one['component']['name']}" for one in _extra(found.offers))
        whose = "psiflow's own" if found.own else "adopted"
        table.add_row(name, found.offers["python"], shlex.join(found.launch), components or "those of psiflow", whose)
    show(table)


@app.command()
def check(names: Names = None) -> None:
    """Ask environments again, and compare with their records and this interpreter."""
    from psiflow_core import environments
    from psiflow_core.cli import show
    from psiflow_core.doctor import environment

    healthy = True
    for name in names or environments.names():
        if name not in environments.names():
            environments.known(name)  # raises, with the names that there are
        for finding in environment(name):
            show(finding.line())
            healthy = healthy and finding.verdict != "bad"
    raise typer.Exit(0 if healthy else 1)


@app.command()
def remove(name: Name) -> None:
    """Delete an environment; of one that was adopted only the record."""
    from psiflow_core import installing
    from psiflow_core.cli import show

    installing.remove(name)
    show(f"{name} is removed.")


@contextmanager
def _going_on(if_stopped: str) -> Iterator[Step]:
    """Show what goes on: as it changes on a terminal, else a line each."""
    from rich.text import Text

    from psiflow_core.cli import show, stdout

    console = stdout()
    try:
        if console.is_terminal:
            with console.status("starting") as status:
                yield lambda what: status.update(Text(f"{what} …"))
        else:
            yield lambda what: show(f"{what} …")
    except KeyboardInterrupt:
        show(f"Stopped. {if_stopped}")
        raise typer.Exit(130) from None


def _tell(environment: Environment) -> None:
    """Show what an environment offers; the exit code tells whether all of it can be used."""
    from rich.text import Text

    from psiflow_core.cli import show
    from psiflow_core.offers import faults

    show(_offered(environment.offers))
    problems = list(faults(environment.offers))
    try:
        environment.agree()
    except PsiflowError as error:
        problems.append(str(error))
    for problem in problems:
        show(Text(problem, style="bold red"))
    if not problems:
        show(f"Environment '{environment.name}' is ready: {shlex.join(environment.launch)}")
    raise typer.Exit(1 if problems else 0)


def _offered(offers: Plain) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("kind", "name", "distribution", "version", "engine", box=box.SIMPLE_HEAD)
    for one in offers["components"]:
        engine = f"{one['engine']} {one.get('engine_version', '')}" if one["engine"] else ""
        kind, name = one["component"]["kind"], one["component"]["name"]
        table.add_row(kind, name, one["distribution"], one["version"], engine)
    return table


def _extra(offers: Plain) -> Iterator[Plain]:
    """What is there beside the components that psiflow itself brings."""
    yield from (one for one in offers["components"] if one["distribution"] != "psiflow-core")
