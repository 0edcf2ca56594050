"""Whatever is wrong with what a user gives is told in one sentence before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import psiflow_core as psiflow
from psiflow_core.errors import CampaignError, OptionError, PluginNotFound, PsiflowError, StructureError
from psiflow_core.execution.context import Context
from psiflow_core.learning.driver.folder import Store


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Context]:
    """Workers that must not be needed."""
    context = Context(folder=tmp_path / "pools")
    yield context
    assert not (tmp_path / "pools").exists(), "workers were started"


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with Context(psiflow.executor("threads"), folder=tmp_path_factory.mktemp("pools")) as context:
        yield context


def learning(**settings: Any) -> psiflow.OnlineLearning:
    given: dict[str, Any] = {
        "potential": psiflow.potential("toy"),
        "sampler": psiflow.sampler("ase"),
        "reference": psiflow.reference("toy"),
        "budget": psiflow.Budget(labels=10),
    }
    return psiflow.OnlineLearning(**{**given, **settings})


def run(folder: Path, context: Context, start: Any = None, **options: Any) -> None:
    structures = molecule("H2O") if start is None else start
    options.pop("learning", learning()).run(start=structures, folder=folder, context=context, progress=False, **options)


def with_nan() -> Atoms:
    atoms = molecule("H2O")
    atoms.positions[1, 2] = np.nan
    return atoms


def overlapping() -> Atoms:
    atoms = molecule("H2O")
    atoms.positions[2] = atoms.positions[0] + [0.0, 0.0, 0.29]
    return atoms


def radical(spin: int | None) -> Atoms:
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    if spin is not None:
        atoms.info["spin"] = spin
    return atoms


def cell_without_volume() -> Atoms:
    return Atoms("Ar2", [[0, 0, 0], [3, 0, 0]], cell=[5, 5, 0], pbc=True)


STRUCTURES: list[tuple[Callable[[], Any], str]] = [
    (list, "there is no structure"),
    (Atoms, "has no atoms"),
    (with_nan, r"start structure 0 \(H2O\): its positions or cell are not finite"),
    (overlapping, r"atoms 0 and 2 are 0\.290 Å apart \(nearest allowed: 0\.3 Å\)"),
    (lambda: radical(None), r"9 electrons cannot have spin multiplicity 1, .*; set info\['spin'\]"),
    (lambda: radical(1), "9 electrons cannot have spin multiplicity 1"),
    (lambda: radical(0), "9 electrons cannot have spin multiplicity 0"),
    (cell_without_volume, "its cell vectors are missing or dependent"),
    (lambda: [molecule("H2O"), overlapping()], "start structure 1"),
]


@pytest.mark.parametrize(("make", "said"), STRUCTURES, ids=[said[:24] for _, said in STRUCTURES])
def test_an_unsound_structure_is_refused(make: Callable[[], Any], said: str, idle: Context, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=said) as told:
        run(tmp_path / "c", idle, start=make())
    assert "\n" not in str(told.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("where", ["test", "data"])
def test_unsound_structures_are_refused_wherever_they_are_given(where: str, idle: Context, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=f"{where} structure 0.*Å apart"):
        run(tmp_path / "c", idle, **{where: overlapping()})


def test_data_without_labels_are_refused(idle: Context, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=r"data structure 0 \(H2O\): it has no label: energy and"):
        run(tmp_path / "c", idle, data=molecule("H2O"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cannot read structures from .*start\.xyz"),
        ("", r"start\.xyz"),
        ("this is not a structure\n", r"cannot read structures from .*start\.xyz"),
        ("3\n\nO 0 0 0\nH 0 0 1\n", r"cannot read structures from .*start\.xyz"),
    ],
    ids=["missing", "empty", "nonsense", "truncated"],
)
def test_a_start_file_that_cannot_be_read_is_named(
    content: str | None, said: str, idle: Context, tmp_path: Path
) -> None:
    file = tmp_path / "start.xyz"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StructureError, match=said):
        run(tmp_path / "c", idle, start=file)


def test_an_unsound_structure_of_a_file_is_named_by_file_and_number(idle: Context, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "start.xyz", [molecule("H2O"), overlapping()])
    with pytest.raises(StructureError, match=r"start\.xyz 1 \(H2O\): atoms 0 and 2"):
        run(tmp_path / "c", idle, start=tmp_path / "start.xyz")


def ramping(option: str, start: float) -> psiflow.Walking:
    return psiflow.Walking(ramps={option: psiflow.Ramp(start, 300.0)})


OPTIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: psiflow.sampler("ase", temperature=-300.0), r"temperature=-300\.0: .*greater than 0"),
    (lambda: learning(committee=0), r"committee=0: .*greater than 0"),
    (lambda: psiflow.Budget(labels=0), r"labels=0: .*greater than 0"),
    (lambda: learning(budget={"labels": 0}), r"budget: labels=0: .*greater than 0"),
    (lambda: learning(walkers=0), r"walkers=0: .*greater than 0"),
    (lambda: learning(comittee=4), r"unknown option 'comittee'\. Did you mean 'committee'\?"),
    (lambda: psiflow.sampler("ase", temprature=300.0), "Did you mean 'temperature'"),
    (lambda: learning(walking=ramping("temperature", -1.0)), r"temperature=-1\.0: .*greater than 0"),
    (lambda: psiflow.Limits(deviation=-0.1), r"deviation=-0\.1"),
    (lambda: learning(schedule="parallel"), "schedule='parallel': .*'concurrent' or 'sequential'"),
    (lambda: learning(sampler=psiflow.reference("toy")), "a sampler is needed, not the reference"),
    (lambda: psiflow.OnlineLearning(potential="toy", sampler="ase", reference="toy"), "'budget' is missing"),
]


@pytest.mark.parametrize(("make", "said"), OPTIONS, ids=[said[:24] for _, said in OPTIONS])
def test_an_option_outside_its_range_is_refused_by_name_and_value(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


def test_an_unknown_component_is_refused_with_what_may_be_meant() -> None:
    with pytest.raises(PluginNotFound, match="Did you mean 'toy'"):
        learning(reference="tooy")


def test_a_campaign_with_nothing_to_begin_with_is_refused(idle: Context, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nothing to begin with: bootstrap\.structures=0"):
        run(tmp_path / "c", idle, learning=learning(bootstrap=psiflow.Bootstrap(structures=0)))


def test_a_ramp_without_a_pressure_is_refused() -> None:
    with pytest.raises(OptionError, match="sampler 'ase' has no pressure to ramp: give it one"):
        learning(sampler=psiflow.sampler("ase", ensemble="nvt"), walking=ramping("pressure", 0.0))


def test_a_ramp_without_a_temperature_is_refused() -> None:
    with pytest.raises(OptionError, match="sampler 'random-displacement' has no temperature to ramp"):
        learning(sampler=psiflow.sampler("random-displacement"), walking=ramping("temperature", 100.0))


def test_a_folder_that_cannot_be_written_is_refused(idle: Context, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CampaignError, match=r"cannot write into the campaign folder .*choose another folder"):
        run(tmp_path / "file" / "c", idle)


def test_a_folder_in_use_is_refused_and_its_user_named(idle: Context, tmp_path: Path) -> None:
    owner = Store(tmp_path / "c")
    owner.open_for_writing()
    with pytest.raises(CampaignError, match=r"is being run by process \d+ on .*wait for it or stop it"):
        run(tmp_path / "c", idle)
    owner.release()


def test_a_model_that_is_none_is_refused(idle: Context, tmp_path: Path) -> None:
    with pytest.raises(PsiflowError, match=r"there is no potential in .*nowhere"):
        run(tmp_path / "c", idle, model=tmp_path / "nowhere")


# What only a worker can know -------------------------------------------------------------------------------


def test_a_crystal_is_refused_by_a_molecular_reference(threads: Context, tmp_path: Path) -> None:
    asked = learning(reference=psiflow.reference("pyscf"))
    with pytest.raises(StructureError, match="periodic"):
        run(tmp_path / "c", threads, learning=asked, start=bulk("Si", cubic=True))
    assert not list((tmp_path / "c" / "labels").rglob("*.json"))


def test_an_element_that_the_basis_does_not_know_is_refused(threads: Context, tmp_path: Path) -> None:
    asked = learning(reference=psiflow.reference("pyscf", basis="6-31g"))
    heavy = Atoms("Au2", [[0, 0, 0], [0, 0, 2.5]])
    with pytest.raises((StructureError, OptionError), match="Au"):
        run(tmp_path / "c", threads, learning=asked, start=heavy)


def test_a_constant_pressure_without_a_cell_is_refused(threads: Context, tmp_path: Path) -> None:
    asked = learning(sampler=psiflow.sampler("ase", ensemble="npt"))
    with pytest.raises(StructureError, match="is not periodic in all directions"):
        run(tmp_path / "c", threads, learning=asked)


def test_what_was_refused_can_be_mended_in_the_same_folder(threads: Context, tmp_path: Path) -> None:
    small = {"budget": psiflow.Budget(labels=3), "bootstrap": psiflow.Bootstrap(structures=3), "committee": 1}
    with pytest.raises(StructureError):
        run(tmp_path / "c", threads, learning=learning(sampler=psiflow.sampler("ase", ensemble="npt"), **small))
    run(tmp_path / "c", threads, learning=learning(sampler=psiflow.sampler("ase", ensemble="nvt"), **small))
    assert (tmp_path / "c" / "report.html").is_file()


def test_what_is_no_component_is_refused_with_what_to_write() -> None:
    with pytest.raises(OptionError, match=r"sampler: write psiflow\.sampler\(…\) or a name, not 3"):
        psiflow.OnlineLearning(potential="toy", sampler=3, reference="toy", budget=psiflow.Budget(labels=1))
