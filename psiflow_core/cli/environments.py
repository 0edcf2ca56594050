"""`psiflow env`: separate environments for conflicting plugins."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from psiflow_core.errors import EnvironmentUnfit, PsiflowError

if TYPE_CHECKING:
    from rich.table import Table

    from psiflow_core.environments.environment import Environment
    from psiflow_core.environments.install import Installer, Step
    from psiflow_core.structures import Plain

app = typer.Typer(
    name="env",
    no_args_is_help=True,
    help="Keep conflicting plugins in separate environments.",
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="The environment's name.", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(help="Names of environments; by default all.", show_default=False)]
Packages = Annotated[list[str] | None, typer.Argument(help="Packages, as pip takes them.", show_default=False)]
Editable = Annotated[
    list[str] | None,
    typer.Option("--editable", "-e", metavar="FOLDER", help="A package in development.", show_default=False),
]
Constraint = Annotated[
    list[str] | None,
    typer.Option("--constraint", "-c", metavar="FILE", help="A constraints file, as pip takes it.", show_default=False),
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
    """Make an environment, install packages in it, and record its components.

    It gets the same versions of psiflow and Parsl as this interpreter.
    The packages are stored; psiflow env update installs them again.
    """
    from typing import cast

    from psiflow_core.environments import install
    from psiflow_core.environments.requirements import words

    wanted = words(packages or [], editable or [], constraint or [])
    with _progress("The unfinished environment was deleted.") as step:
        made = install.create(name, wanted, cast("Installer | None", installer), step)
    _report(made)


@app.command()
def update(name: Name, packages: Packages = None, editable: Editable = None, constraint: Constraint = None) -> None:
    """Upgrade an environment, add packages to it, and record its components again.

    Nothing is installed in an adopted environment.
    """
    from psiflow_core.environments import install
    from psiflow_core.environments.environment import known
    from psiflow_core.environments.requirements import words

    wanted = words(packages or [], editable or [], constraint or [])
    with _progress(f"The environment may be incomplete. Before its next use: psiflow env update {name}") as step:
        renewed = install.update(known(name), wanted, step)
    _report(renewed)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def adopt(
    name: Name,
    where: Annotated[
        list[str],
        typer.Argument(help="Its folder, its Python, or the command that starts its Python.", show_default=False),
    ],
) -> None:
    """Record the components of an existing environment: a venv, a conda prefix, a container.

    psiflow env adopt gpu apptainer exec --nv /images/gpu.sif python

    Nothing is installed there. It must have the same version of psiflow
    as this interpreter.
    """
    from psiflow_core.environments import install

    with _progress("Nothing was recorded.") as step:
        adopted = install.adopt(name, where, step)
    _report(adopted)


@app.command(name="list")
def list_() -> None:
    """List the environments and their components."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from psiflow_core.cli.showing import show
    from psiflow_core.environments.environment import names, read

    if not names():
        show("There are no environments. To make one: psiflow env create NAME PACKAGE")
        return
    table = Table("name", "python", "command", "components", "origin", box=box.SIMPLE_HEAD)
    table.columns[2].overflow = "fold"
    for name in names():
        try:
            stored = read(name)
        except EnvironmentUnfit as error:
            table.add_row(name, "", "", Text(error.found, style="bold red"), "")
            continue
        described = stored.description
        components = ", ".join(f"{one['component']['kind']} {one['component']['name']}" for one in _extra(described))
        origin = "made by psiflow" if stored.own else "adopted"
        table.add_row(name, described["python"], shlex.join(stored.launch), components or "those of psiflow", origin)
    show(table)


@app.command()
def check(names: Names = None) -> None:
    """Compare environments with their descriptions and with this interpreter."""
    from psiflow_core.cli import diagnosis
    from psiflow_core.cli.showing import show
    from psiflow_core.environments import environment

    healthy = True
    for name in names or environment.names():
        if name not in environment.names():
            environment.known(name)  # raises, with the existing names
        for finding in diagnosis.environment(name):
            show(finding.line())
            healthy = healthy and finding.verdict != "bad"
    raise typer.Exit(0 if healthy else 1)


@app.command()
def remove(name: Name) -> None:
    """Delete an environment. Of an adopted environment, only its description is deleted."""
    from psiflow_core.cli.showing import show
    from psiflow_core.environments import install

    install.remove(name)
    show(f"{name} is removed.")


@contextmanager
def _progress(if_stopped: str) -> Iterator[Step]:
    """Show each step: on a terminal in one changing line, otherwise in a line each."""
    from rich.text import Text

    from psiflow_core.cli.showing import show, stdout

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


def _report(environment: Environment) -> None:
    """Show the components of an environment. The exit code is 1 if any of them cannot be used."""
    from rich.text import Text

    from psiflow_core.cli.showing import show
    from psiflow_core.environments.description import faults

    show(_components(environment.description))
    problems = list(faults(environment.description))
    try:
        environment.agree()
    except PsiflowError as error:
        problems.append(str(error))
    for problem in problems:
        show(Text(problem, style="bold red"))
    if not problems:
        show(f"Environment '{environment.name}' is ready: {shlex.join(environment.launch)}")
    raise typer.Exit(1 if problems else 0)


def _components(description: Plain) -> Table:
    from rich import box
    from rich.table import Table

    table = Table("kind", "name", "distribution", "version", "engine", box=box.SIMPLE_HEAD)
    for one in description["components"]:
        engine = f"{one['engine']} {one.get('engine_version', '')}" if one["engine"] else ""
        kind, name = one["component"]["kind"], one["component"]["name"]
        table.add_row(kind, name, one["distribution"], one["version"], engine)
    return table


def _extra(description: Plain) -> Iterator[Plain]:
    """The components from plugins, without those of psiflow itself."""
    yield from (one for one in description["components"] if one["distribution"] != "psiflow-core")
