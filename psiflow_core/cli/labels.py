"""`psiflow labels`: labels to extended XYZ, back, and from store to store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from psiflow_core.errors import OptionError

if TYPE_CHECKING:
    from psiflow_core.components import Spec
    from psiflow_core.foreign_labels import Names
    from psiflow_core.labels import Moved

app = typer.Typer(
    name="labels",
    no_args_is_help=True,
    help="Move labels as extended XYZ, or between label stores.",
    add_completion=False,
)

Source = Annotated[Path, typer.Argument(help="A campaign's folder, or a label store.", show_default=False)]


@app.command()
def export(
    folder: Source,
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
) -> None:
    """Write every label as extended XYZ, with the reference that computed it.

    ASE, OVITO and every other reader of extended XYZ read it; psiflow labels
    import gives back the same labels, exact to the last bit.
    """
    from psiflow_core.cli import show
    from psiflow_core.labels import export_labels

    files, given = _labels_in(folder)
    moved = export_labels(files, file)
    _problems(moved)
    show(f"{_labels(moved.put)} in {file}")
    if given:
        show(f"{_labels(given)} left out: they came as data, and no reference is known; dataset.xyz has them")
    raise typer.Exit(1 if moved.problems else 0)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="Labelled structures.", show_default=False)],
    store: Annotated[Path, typer.Argument(help="The label store; made where there is none.", show_default=False)],
    reference: Annotated[
        str | None, typer.Option(help="What computed labels that psiflow did not export.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of that reference: key=value.", show_default=False)
    ] = None,
    energy: Annotated[str | None, typer.Option(help="Name of the energy in the file. [eV]", show_default=False)] = None,
    forces: Annotated[
        str | None, typer.Option(help="Name of the forces in the file. [eV/Å]", show_default=False)
    ] = None,
    stress: Annotated[
        str | None, typer.Option(help="Name of the stress in the file. [eV/Å³]", show_default=False)
    ] = None,
    virial: Annotated[
        str | None, typer.Option(help="Name of the virial, -stress times volume. [eV]", show_default=False)
    ] = None,
) -> None:
    """Put the labels of a file into a label store.

    What psiflow exported becomes what it was. The labels of others need
    --reference, and its options with --option: they then count as labels of
    that reference, and whoever asks it for such a structure gets them.
    Labels under other names than energy and forces are found by --energy and
    --forces, and by --stress or --virial.
    """
    from psiflow_core.labels import import_labels, put, require_store

    require_store(store)
    names = _names(energy, forces, stress, virial)
    _tell(put(import_labels(file, _spec(reference, option or []), names), store), store)


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Campaigns' folders, or label stores.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The label store; made where there is none.", show_default=False)],
) -> None:
    """Copy what is missing into a label store.

    Where both have a label and the two differ, both stay as they are, it is
    told, and the exit code is 1.
    """
    from psiflow_core.labels import merge_labels, require_store

    require_store(target)
    _tell(merge_labels([file for source in sources for file in _labels_in(source)[0]], target), target)


def _labels_in(folder: Path) -> tuple[list[Path], int]:
    """The files of the labels of a campaign, or of a store; and how many labels came as data, which no store takes.

    Raises:
        StructureError: it is neither.
    """
    from psiflow_core.labels import label_files
    from psiflow_core.learning.records import read_campaign
    from psiflow_core.store import Store

    store = Store(folder)
    if not store.exists():
        return label_files(folder), 0
    used = {store.absolute(one.file) for one in read_campaign(folder).state.candidates if one.file is not None}
    given = {file for file in used if file.is_relative_to(store.given)}
    own = label_files(store.labels) if store.labels.is_dir() else []
    return sorted({*own, *used} - given, key=lambda file: file.name), len(given)


def _spec(reference: str | None, options: list[str]) -> Spec | None:
    """The reference that labels are said to be of.

    Raises:
        OptionError, PluginNotFound: there is none of this name, or its options are wrong.
    """
    from psiflow_core import catalogue

    if reference is None:
        if options:
            raise OptionError("--option is for a reference: give --reference NAME too")
        return None
    return catalogue.spec("reference", reference, dict(map(_option, options)))


def _names(energy: str | None, forces: str | None, stress: str | None, virial: str | None) -> Names | None:
    """Where the labels are in a file; None for ASE's names."""
    from psiflow_core.foreign_labels import Names

    if energy is not None and forces is not None:
        return Names(energy, forces, stress, virial)
    if energy or forces or stress or virial:
        raise OptionError("name the energy and the forces of the label: --energy NAME --forces NAME")
    return None


def _option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise OptionError(f"--option {text}: write key=value")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise OptionError(f"--option {name}: {value} is not YAML") from error


def _tell(moved: Moved, store: Path) -> None:
    from psiflow_core.cli import show

    _problems(moved)
    there = f"; {_labels(moved.there)} {'was' if moved.there == 1 else 'were'} there already" if moved.there else ""
    show(f"{_labels(moved.put)} put into {store}{there}")
    raise typer.Exit(1 if moved.problems else 0)


def _problems(moved: Moved) -> None:
    from psiflow_core.cli import show

    for problem in moved.problems:
        show(problem)
    if moved.problems:
        show(f"{_labels(len(moved.problems))} left alone: see above")


def _labels(count: int) -> str:
    return "1 label" if count == 1 else f"{count} labels"
