"""`psiflow labels`: export, import and copy labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from psiflow_core.errors import OptionError

if TYPE_CHECKING:
    from psiflow_core.components import Spec
    from psiflow_core.labels.extxyz import Moved
    from psiflow_core.labels.foreign import Names

app = typer.Typer(
    name="labels",
    no_args_is_help=True,
    help="Export, import and copy labels.",
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
    from psiflow_core.cli.showing import show
    from psiflow_core.labels.extxyz import export_labels

    files, given = _labels_in(folder)
    moved = export_labels(files, file)
    _problems(moved)
    show(f"{_labels(moved.put)} in {file}")
    if given:
        show(f"{_labels(given)} left out: they came as data, without a reference; they are in dataset.xyz")
    raise typer.Exit(1 if moved.problems else 0)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="Labelled structures.", show_default=False)],
    store: Annotated[Path, typer.Argument(help="The label store; made if it does not exist.", show_default=False)],
    reference: Annotated[
        str | None, typer.Option(help="The reference of labels that psiflow did not export.", show_default=False)
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

    Labels that psiflow exported are restored exactly. Labels from other
    programs need --reference, with its options as --option. They then count
    as labels of that reference, and replace its calculations. Give names
    other than energy and forces with --energy and --forces, and --stress or
    --virial.
    """
    from psiflow_core.labels.extxyz import import_labels, put, require_store

    require_store(store)
    names = _names(energy, forces, stress, virial)
    _report(put(import_labels(file, _spec(reference, option or []), names), store), store)


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Campaigns' folders, or label stores.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The label store; made if it does not exist.", show_default=False)],
) -> None:
    """Copy missing labels into a label store.

    Existing labels do not change. A label that differs from an existing one
    is reported, and the exit code is 1.
    """
    from psiflow_core.labels.extxyz import merge_labels, require_store

    require_store(target)
    _report(merge_labels([file for source in sources for file in _labels_in(source)[0]], target), target)


def _labels_in(folder: Path) -> tuple[list[Path], int]:
    """The label files of a campaign or a store, and the number of labels that came as data, which no store takes.

    Raises:
        StructureError: the folder is neither.
    """
    from psiflow_core.labels.extxyz import label_files
    from psiflow_core.learning.driver.folder import Store
    from psiflow_core.learning.driver.request import read_campaign

    store = Store(folder)
    if not store.exists():
        return label_files(folder), 0
    used = {store.absolute(one.file) for one in read_campaign(folder).state.candidates if one.file is not None}
    given = {file for file in used if file.is_relative_to(store.given)}
    own = label_files(store.labels) if store.labels.is_dir() else []
    return sorted({*own, *used} - given, key=lambda file: file.name), len(given)


def _spec(reference: str | None, options: list[str]) -> Spec | None:
    """The reference that the user gives for the labels.

    Raises:
        OptionError, PluginNotFound: there is no such reference, or its options are wrong.
    """
    from psiflow_core.cli.values import options_of
    from psiflow_core.environments import catalogue

    if reference is None:
        if options:
            raise OptionError("--option belongs to a reference: also give --reference NAME")
        return None
    return catalogue.spec("reference", reference, options_of(options))


def _names(energy: str | None, forces: str | None, stress: str | None, virial: str | None) -> Names | None:
    """The names of the labels in a file; None for ASE's names."""
    from psiflow_core.labels.foreign import Names

    if energy is not None and forces is not None:
        return Names(energy, forces, stress, virial)
    if energy or forces or stress or virial:
        raise OptionError("name the energy and the forces of the label: --energy NAME --forces NAME")
    return None


def _report(moved: Moved, store: Path) -> None:
    from psiflow_core.cli.showing import show

    _problems(moved)
    existing = f"; {_labels(moved.there)} existed already" if moved.there else ""
    show(f"{_labels(moved.put)} put into {store}{existing}")
    raise typer.Exit(1 if moved.problems else 0)


def _problems(moved: Moved) -> None:
    from psiflow_core.cli.showing import show

    for problem in moved.problems:
        show(problem)
    if moved.problems:
        show(f"{_labels(len(moved.problems))} not copied: see above")


def _labels(count: int) -> str:
    return "1 label" if count == 1 else f"{count} labels"
