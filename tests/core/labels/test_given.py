"""What a campaign is given: in which ways, and that labels are held against physics before anything is learned."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.io import write
from psiflow_toys.campaigns import moved_water

import psiflow_core as psiflow
from psiflow_core.checks import check
from psiflow_core.components import LabelTask
from psiflow_core.errors import CampaignError, OptionError, StructureError
from psiflow_core.execution.context import Context
from psiflow_core.labels.given import check_data, check_zero, is_free_atom, structures
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.registry.plugins import build
from psiflow_core.structures import Label, bare, digest, isolated_atom, label_of, with_label


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with Context(psiflow.executor("threads"), folder=tmp_path_factory.mktemp("pools")) as context:
        yield context


TOY = psiflow.reference("toy")


def by_toy(atoms: Atoms, shift: float = 0.0) -> Atoms:
    """Labelled by the toy, with another zero of energy per atom. [eV]"""
    found: Label = build(TOY).label(atoms, LabelTask(Path()))  # type: ignore[attr-defined]
    return with_label(atoms, Label(found.energy + shift * len(atoms), found.forces, found.stress))


def learning(**settings: Any) -> psiflow.OnlineLearning:
    given: dict[str, Any] = {
        "potential": "toy",
        "sampler": psiflow.sampler("ase", ensemble="nve", temperature=100.0),
        "reference": TOY,
        "walkers": 1,
        "committee": 1,
        "budget": psiflow.Budget(labels=2),
        "walking": psiflow.Walking(segment=psiflow.Segments(steps=10)),
    }
    return psiflow.OnlineLearning(**{**given, **settings})


def run(folder: Path, context: Context, start: Any = None, **options: Any) -> Any:
    asked = options.pop("learning", learning())
    begin = molecule("H2O") if start is None else start
    return asked.run(start=begin, folder=folder, context=context, progress=False, **options)


# In which ways structures are given ------------------------------------------------------------------------


def files(folder: Path) -> tuple[Path, Path]:
    write(folder / "one.xyz", [molecule("H2O")] * 2)
    write(folder / "two.xyz", molecule("NH3"))
    return folder / "one.xyz", folder / "two.xyz"


@pytest.mark.parametrize(
    ("give", "formulas"),
    [
        (lambda one, two: one, ["H2O", "H2O"]),
        (lambda one, two: str(two), ["H3N"]),
        (lambda one, two: [one, two], ["H2O", "H2O", "H3N"]),
        (lambda one, two: (str(two), str(one)), ["H3N", "H2O", "H2O"]),
        (lambda one, two: [molecule("CH4"), two], ["CH4", "H3N"]),
        (lambda one, two: (molecule(name) for name in ("CH4", "H2O")), ["CH4", "H2O"]),
        (lambda one, two: molecule("CH4"), ["CH4"]),
    ],
)
def test_structures_are_given_as_atoms_files_and_lists_of_both(
    give: Callable[[Path, Path], Any], formulas: list[str], tmp_path: Path
) -> None:
    assert [one.get_chemical_formula() for one in structures(give(*files(tmp_path)), "start")] == formulas


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "start: None holds no structure; give an ASE Atoms, a Dataset, the path of a file, or a list"),
        ([None], "start: None holds"),
        ({"a.xyz": 1}, "start: {'a.xyz': 1} holds"),
        (3, "start: 3 holds"),
        (b"a.xyz", "start: b'a.xyz' holds"),
        ([[molecule("H2O")]], "holds no structure"),
        (np.zeros((3, 3)), "holds no structure"),
        (["none.xyz"], r"none\.xyz: there is no such file"),
        (Path(__file__).parent, "it is a folder; give a file in it, or a list of files"),
        ((), "there is no structure in it"),
        (iter(()), "there is no structure in it"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_holds_no_structure_is_refused(given: Any, says: str) -> None:
    with pytest.raises(StructureError, match=says):
        structures(given, "start")


def test_psiflow_sample_says_what_a_start_is(learned: Path) -> None:
    potential = psiflow.TrainedPotential.load(learned / "potential")
    for given in (None, 3, "a.xyz", [None], {"start": 1}):
        with pytest.raises(OptionError, match="is neither an ASE Atoms nor a Trajectory"):
            psiflow.sample(potential, psiflow.sampler("ase"), given, 1)  # type: ignore[arg-type]


# What the bootstrap copies ---------------------------------------------------------------------------------


def test_displaced_copies_are_of_the_same_electronic_state() -> None:
    iron = bulk("Fe", cubic=True)
    iron.set_initial_magnetic_moments([2.3, -2.3])
    iron.set_initial_charges([0.5, 0.5])
    iron.set_masses([54.0, 57.0])
    iron.info.update(multiplicity=2, config_type="start")
    iron.set_momenta(np.ones((2, 3)))
    (copy,) = psiflow.Bootstrap(structures=1).make([iron], 0)
    assert list(copy.get_initial_magnetic_moments()) == [2.3, -2.3]
    assert list(copy.get_initial_charges()) == [0.5, 0.5]
    assert list(copy.get_masses()) == [54.0, 57.0]
    assert copy.info == {"charge": 1, "spin": 2}
    assert not copy.has("momenta")
    copy.positions, copy.cell = iron.positions, iron.cell
    assert digest(copy) == digest(bare(iron))


# Labels that can be believed --------------------------------------------------------------------------------


def copper(energy: float = -1.0, force: float = 0.1, stress: float = 0.0, move: float = 0.0) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0, 0] += move
    return with_label(atoms, Label(energy, np.full((4, 3), force), np.full(6, stress)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            [copper(), copper(force=1e4, move=0.1)],
            r"data 1 \(Cu4\): the force on atom 0 is 1\.732e\+04 eV/Å",
        ),
        ([copper(stress=30.0)], r"its stress is 30 eV/Å³, 4807 GPa, but at most 500 GPa.*is it in kbar or GPa"),
        ([copper(energy=np.nan)], "not finite"),
        ([copper(stress=np.inf)], "not finite"),
        ([copper(), copper(energy=-1.01)], r"data 1 \(Cu4\): data 0 is the same structure with other energy"),
        ([copper(), copper(stress=0.1)], "data 0 is the same structure with other energy, forces or stress"),
        ([copper(), copper(force=0.2)], "data 0 is the same structure with other energy"),
    ],
)
def test_a_label_that_no_sound_calculation_gives_is_refused(data: list[Atoms], says: str) -> None:
    with pytest.raises(StructureError, match=says):
        check_data(data, highest_force=50.0)


def test_the_noise_of_a_calculation_makes_no_other_label() -> None:
    check_data([copper(), copper(energy=-1.0 + 1e-7, force=0.1 + 1e-6)], highest_force=50.0)


def test_the_limit_on_forces_is_the_campaigns_own(tmp_path: Path, threads: Context) -> None:
    wild = with_label(molecule("H2O"), Label(-1.0, np.full((3, 3), 60.0)))
    with pytest.raises(StructureError, match=r"data 0 .*walkers are stopped at 50 eV/Å \(walking\.limits\.force\)"):
        run(tmp_path / "c", threads, data=wild)
    check_data([wild], highest_force=200.0)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("atoms", "free"),
    [
        (Atoms("H"), True),
        (Atoms("H", cell=[10, 10, 10], pbc=True), True),
        (Atoms("H", cell=[5, 5, 5], pbc=True, info={"config_type": "IsolatedAtom"}), True),
        (Atoms("H", cell=[5, 5, 5], pbc=True, info={"config_type": "isolated_atom"}), True),
        (bulk("Cu"), False),
        (bulk("Cs"), False),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), False),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], info={"config_type": "IsolatedAtom"}), False),
    ],
)
def test_a_free_atom_is_known(atoms: Atoms, free: bool) -> None:
    assert is_free_atom(atoms) == free


ZEROS = {"Cu": -1000.0, "H": -13.6}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([copper(-4000.0 - 12000.0)], "3000.0 eV/atom below the free atoms of the reference"),
        ([copper(-10.0)], "997.5 eV/atom above the free atoms"),
        ([*[copper(-4010.0)] * 5, copper(-4100.0)], r"their lowest 25\.0 eV/atom below them"),
        ([with_label(Atoms("H"), Label(-12.5, np.zeros((1, 3))))], r"the free H atom .* -12\.500 eV.* -13\.600 eV"),
    ],
)
def test_another_zero_of_energy_is_told_with_its_numbers(data: list[Atoms], says: str) -> None:
    with pytest.raises(CampaignError, match=says) as told:
        check_zero(data, ZEROS)
    assert "give data of this reference, or the reference of these data" in str(told.value)


def test_what_can_be_bound_has_the_same_zero() -> None:
    """Tungsten and carbon are bound by 8.9 and 7.4 eV/atom; a repulsive dimer, and a cation, lie above free atoms."""
    repelled = [with_label(Atoms("H2", [[0, 0, 0], [0, 0, 0.4]]), Label(30.0, np.zeros((2, 3))))]
    check_zero([copper(-4000.0 - 4 * 8.9), copper(-4000.0), *repelled], ZEROS)
    check_zero([with_label(Atoms("H"), Label(-13.59, np.zeros((1, 3))))], ZEROS)
    check_zero([], ZEROS)


def test_data_of_another_zero_end_a_campaign_before_anything_is_trained(threads: Context, tmp_path: Path) -> None:
    data = [by_toy(atoms, shift=-3000.0) for atoms in moved_water(3, seed=1)]
    for _ in range(2):
        with pytest.raises(CampaignError, match=r"another zero of energy: their median lies \d+\.\d eV/atom below"):
            run(tmp_path / "c", threads, data=data)
        campaign = read_campaign(tmp_path / "c")
        assert {one.origin for one in campaign.state.candidates if one.status == "labelled"} == {"atom", "initial"}
        assert not campaign.state.generations, "nothing was trained"


def free(symbol: str, shift: float = 0.0) -> Atoms:
    """As data sets have them: no spin is told."""
    atom = by_toy(isolated_atom(symbol), shift)
    atom.info = {"config_type": "IsolatedAtom"}
    return with_label(Atoms(symbol, info=atom.info), label_of(atom))


def test_free_atoms_among_the_data_are_compared_and_not_learned(threads: Context, tmp_path: Path) -> None:
    data = [*(by_toy(atoms) for atoms in moved_water(3, seed=1)), free("H"), free("O")]
    result = run(tmp_path / "c", threads, data=data)
    assert sum(one.origin == "initial" for one in result.dataset.provenance) == 3
    with pytest.raises(
        CampaignError, match=r"data 1: the free O atom has .* eV in the data and .* eV with the reference"
    ):
        run(tmp_path / "other", threads, data=[free("H"), free("O", shift=3.0), *data[:3]])


def test_data_of_free_atoms_alone_are_nothing_to_begin_with(threads: Context, tmp_path: Path) -> None:
    asked = learning(bootstrap=psiflow.Bootstrap(structures=0))
    with pytest.raises(OptionError, match="nothing to begin with"):
        run(tmp_path / "c", threads, learning=asked, data=[free("H")])


def test_radicals_with_labels_are_data_and_no_start() -> None:
    radical = with_label(Atoms("OH", [[0, 0, 0], [0, 0, 0.97]]), Label(-1.0, np.zeros((2, 3))))
    assert len(structures([radical, free("N")], "data")) == 2
    with pytest.raises(StructureError, match="9 electrons cannot have spin multiplicity 1"):
        structures(radical, "start")


# What moves a start ------------------------------------------------------------------------------------------


def hot(kelvin: float) -> Atoms:
    atoms = molecule("H2O")
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * kelvin)
    atoms.set_momenta(np.random.default_rng(0).normal(0, 1, (3, 3)) * spread)
    return atoms


def test_a_start_that_is_too_hot_is_refused_before_anything_is_computed(threads: Context, tmp_path: Path) -> None:
    asked = learning(sampler=psiflow.sampler("ase", ensemble="nvt", temperature=300.0))
    with pytest.raises(StructureError, match=r"start structure 1 \(H2O\): it has momenta of \d+ K, and .* at 300"):
        run(tmp_path / "c", threads, learning=asked, start=[hot(300.0), hot(60000.0)])
    assert not list((tmp_path / "c" / "labels").rglob("*.json"))


def test_a_ramp_begins_at_its_own_temperature(threads: Context, tmp_path: Path) -> None:
    ramp = psiflow.Walking(ramps={"temperature": psiflow.Ramp(10.0, 9000.0)})
    asked = learning(sampler=psiflow.sampler("ase", ensemble="nvt", temperature=9000.0), walking=ramp)
    with pytest.raises(StructureError, match=r"the sampler is at 10 K"):
        run(tmp_path / "c", threads, learning=asked, start=hot(6000.0))


def test_psiflow_sample_refuses_a_start_that_is_too_hot(learned: Path) -> None:
    potential = psiflow.TrainedPotential.load(learned / "potential")
    with pytest.raises(StructureError, match="it has momenta of"):
        psiflow.sample(potential, psiflow.sampler("ase", ensemble="nvt", temperature=300.0), hot(60000.0), 1)


def test_momenta_of_the_temperature_pass() -> None:
    check([hot(300.0)])


def test_a_message_is_one_line() -> None:
    with pytest.raises(StructureError) as told:
        structures([molecule("H2O"), None], "start")  # type: ignore[list-item]
    assert re.fullmatch(r"[^\n]+", str(told.value))
