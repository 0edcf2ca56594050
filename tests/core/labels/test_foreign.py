"""Labels of others: one is taken if no other could be meant; else the names that are there and the way are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

import psiflow_core as psiflow
from psiflow_core.cli import main
from psiflow_core.errors import StructureError
from psiflow_core.labels.extxyz import import_labels, label_files
from psiflow_core.labels.foreign import labelled
from psiflow_core.labels.given import structures
from psiflow_core.labels.store import read_label
from psiflow_core.structures import digest, label_of

EMT_LEVEL = psiflow.reference("ase", calculator="emt")
CELL = 'Lattice="3.6 0 0 0 3.6 0 0 0 3.6" pbc="T T T" '
COPPER = [("Cu", 0, 0, 0), ("Cu", 0, 1.8, 1.9), ("Cu", 1.8, 0, 1.8), ("Cu", 1.8, 1.8, 0.1)]
VOLUME = 3.6**3
VOIGT = np.array([1.0, 5.0, 9.0, 7.0, 3.0, 2.0])
FULL = "1 2 3 2 5 7 3 7 9"


def frame(comment: str = "", box: str = CELL, **columns: float) -> str:
    """Four atoms of copper with columns of forces along x."""
    properties = "species:S:1:pos:R:3" + "".join(f":{name}:R:3" for name in columns)
    rows = [
        " ".join(map(str, [*atom, *(x for force in columns.values() for x in (force, 0.0, 0.0))])) for atom in COPPER
    ]
    return "\n".join(["4", f"{box}Properties={properties} {comment}", *rows, ""])


def written(folder: Path, *frames: str) -> Path:
    file = folder / "train.xyz"
    file.write_text("".join(frames))
    return file


GOOD = frame("energy=-1.0", forces=0.5)


@pytest.mark.parametrize(
    ("text", "energy", "force", "stress"),
    [
        (GOOD, -1.0, 0.5, None),
        (frame("energy=-1.0 free_energy=-1.5", forces=0.5), -1.5, 0.5, None),
        (frame("energy=-1.0 REF_energy=-1.00001", forces=0.5, REF_forces=0.5), -1.0, 0.5, None),
        (frame("energy=-1.0 config_energy_weight=3.0 formation_energy=0.3", forces=0.5), -1.0, 0.5, None),
        (frame("energy=-1.0 energy_per_atom=-0.25 e_above_hull=0.1 E_field=0.2", forces=0.5), -1.0, 0.5, None),
        (frame(f'energy=-1.0 stress="{FULL}"', forces=0.5), -1.0, 0.5, VOIGT),
        (frame(f'energy=-1.0 virial="{FULL}"', forces=0.5), -1.0, 0.5, -VOIGT / VOLUME),
        (frame(f'energy=-1.0 virials="{FULL}"', forces=0.5), -1.0, 0.5, -VOIGT / VOLUME),
        (frame(f'energy=-1.0 Virial="{FULL}"', forces=0.5), -1.0, 0.5, -VOIGT / VOLUME),
        (frame('energy=-1.0 virials="1 5 9 7 3 2"', forces=0.5), -1.0, 0.5, -VOIGT / VOLUME),
        (frame('energy=-1.0 stress="0 0 0 0 0 0 0 0 0"', box="", forces=0.5), -1.0, 0.5, None),
    ],
)
def test_a_label_that_is_the_only_one_is_taken(
    text: str, energy: float, force: float, stress: Any, tmp_path: Path
) -> None:
    (found,) = structures(written(tmp_path, text), "data")
    label = label_of(found)
    assert (label.energy, label.forces[0, 0]) == (energy, force)
    assert (label.stress is None) == (stress is None)
    assert stress is None or label.stress == pytest.approx(stress)


READ = r".*psiflow\.Dataset\.load\(path, energy='{0}energy', forces='{0}forces'"
REF, DFT = READ.format("REF_"), READ.format("dft_")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            frame("energy=-1 REF_energy=-2", forces=0.5, REF_forces=0.1),
            "REF_energy in addition to" + REF,
        ),
        (
            frame("energy=-1 dft_energy=-2", forces=0.5, dft_forces=0.1),
            "dft_energy in addition to" + DFT,
        ),
        (
            frame("energy=-1 mace_energy=-1.1", forces=0.5, mace_forces=0.5),
            "mace_energy in addition to energy",
        ),
        (frame("energy=-1", forces=0.5, xtb_forces=0.1), "xtb_forces in addition to forces, and they differ"),
        (frame("energy=-1 total_energy=-7", forces=0.5), "total_energy in addition to energy"),
        (frame("REF_energy=-2", REF_forces=0.1), "no label.*it has only REF_energy, REF_forces" + REF),
        (frame("energy=-2", DFT_forces=0.1), "no label.*it has only DFT_forces, energy"),
        (frame("Energy=-2", Forces=0.1), r"no label.*Dataset\.load\(path, energy='Energy', forces='Forces'\)"),
        (
            frame("pbe_energy=-2 hf_energy=-1", pbe_forces=0.1, hf_forces=0.2),
            "it has only hf_energy, hf_forces",
        ),
        (frame("energy=-2", force=0.1), r"no label.*Dataset\.load\(path, energy='energy', forces='force'\)"),
        (frame("TotEnergy=-2", force=0.1), r"no label.*Dataset\.load\(path, energy='TotEnergy', forces='force'\)"),
        (frame("energy=-2"), "no label: energy and forces are needed, but it has only energy"),
        (frame(), "no label: energy and forces are needed, but it has only atoms"),
        (
            frame(f'energy=-1 REF_stress="{FULL}"', forces=0.5),
            "it has REF_stress, which is not.*stress='REF_stress'",
        ),
        (
            frame(f'energy=-1 dft_virial="{FULL}"', forces=0.5),
            "it has dft_virial, which is not.*virial='dft_virial'",
        ),
        (
            frame(f'energy=-1 stress="{FULL}" virial="{FULL}"', forces=0.5),
            "it has virial, which is neither its stress",
        ),
        (frame(f'energy=-1 virial="{FULL}" REF_virial="0 0 0 0 0 0 0 0 0"', forces=0.5), "it has REF_virial"),
        (frame('energy=-1 virial="1 2 3 9 5 7 3 7 9"', forces=0.5), "virial is not symmetric"),
        (frame(f'energy=-1 stress="{FULL}"', box="", forces=0.5), "it has a stress but is not periodic; set its pbc"),
        (frame("energy=none", forces=0.5), "energy is .*an energy is one number"),
    ],
)
@pytest.mark.parametrize("take", [lambda file: structures(file, "data"), lambda file: import_labels(file, EMT_LEVEL)])
def test_a_label_that_is_not_clear_is_refused_by_frame_and_names(
    text: str, says: str, take: Callable[[Path], Any], tmp_path: Path
) -> None:
    file = written(tmp_path, GOOD, text)
    with pytest.raises(StructureError, match=says) as told:
        take(file)
    assert "\n" not in str(told.value)
    assert "train.xyz" in str(told.value)
    assert " 1 (Cu4): " in str(told.value), "frames count from 0, as ASE counts them"


BOTH = frame(f'energy=-1.0 REF_energy=-2.0 REF_virial="{FULL}" config_type=bulk', forces=0.5, REF_forces=0.1)


def test_a_label_is_read_under_the_names_that_are_given(tmp_path: Path) -> None:
    file = written(tmp_path, BOTH)
    (found,) = psiflow.Dataset.load(file, energy="REF_energy", forces="REF_forces", virial="REF_virial")
    assert label_of(found).energy == -2.0
    assert label_of(found).forces[0, 0] == 0.1
    assert label_of(found).stress == pytest.approx(-VOIGT / VOLUME)
    assert found.info == {"config_type": "bulk"}, "no other label stays beside it"
    (other,) = psiflow.Dataset.load(file, energy="energy", forces="forces")
    assert (label_of(other).energy, label_of(other).stress) == (-1.0, None)
    again = structures([found, other], "data")
    assert [label_of(one).energy for one in again] == [-2.0, -1.0]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"energy": "REF_energy", "forces": "REF_forces"}, "it also has REF_virial: name it with virial='REF_virial'"),
        ({"energy": "DFT_energy", "forces": "REF_forces"}, "it has no DFT_energy; it has only REF_energy, REF_forces"),
        ({"energy": "REF_virial", "forces": "REF_forces"}, "REF_virial is .*but an energy is one number"),
        ({"energy": "REF_energy", "forces": "REF_virial"}, r"REF_virial has shape \(9,\), but forces have \(4, 3\)"),
        ({"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_energy"}, r"REF_energy has shape \(\)"),
        (
            {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_virial", "virial": "REF_virial"},
            "stress and virial are the same quantity",
        ),
    ],
)
def test_names_that_do_not_fit_are_refused(names: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=rf"train\.xyz 0 \(Cu4\): .*{says}"):
        psiflow.Dataset.load(written(tmp_path, BOTH), **names)


def test_a_virial_of_a_molecule_is_no_stress(tmp_path: Path) -> None:
    text = frame(f'energy=-1 virial="{FULL}"', box="", forces=0.5)
    with pytest.raises(StructureError, match="no volume: it is not periodic"):
        psiflow.Dataset.load(written(tmp_path, text), energy="energy", forces="forces", virial="virial")


@pytest.mark.parametrize("named", [True, False])
def test_labels_are_imported_under_the_names_that_are_given(named: bool, tmp_path: Path, capsys: Any) -> None:
    file, store = written(tmp_path, BOTH), tmp_path / "store"
    names = (
        ["--energy", "REF_energy", "--forces", "REF_forces", "--virial", "REF_virial"] if named else ["--energy", "e"]
    )
    words = ["labels", "import", str(file), str(store), "--reference", "ase", "--option", "calculator=emt", *names]
    with pytest.raises(SystemExit) as end:
        main(words)
    if not named:
        assert "--energy NAME --forces NAME" in capsys.readouterr().err
        return
    assert end.value.code == 0
    (label,) = label_files(store)
    assert label_of(read_label(label)[0]).energy == -2.0
    assert label_of(read_label(label)[0]).stress == pytest.approx(-VOIGT / VOLUME)


def computed() -> Atoms:
    copper = bulk("Cu", cubic=True)
    copper.calc = EMT()
    copper.get_forces()
    return copper


def by_hand(**info: Any) -> Atoms:
    """As people write labels without a calculator."""
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(info)
    atoms.set_array("forces", np.full((4, 3), 0.25))
    return atoms


def test_a_label_that_was_written_by_hand_is_taken() -> None:
    (found,) = structures([by_hand(energy=-3.0)], "data")
    assert label_of(found).energy == -3.0
    assert label_of(found).forces[0, 0] == 0.25
    (array,) = structures([by_hand(energy=np.array([-3.0]), total_energy=np.array([-3.0]))], "data")
    assert label_of(array).energy == -3.0
    (smeared,) = structures([by_hand(energy=-3.0, free_energy=-3.5)], "data")
    assert label_of(smeared).energy == -3.5


def test_a_label_by_hand_beside_one_of_a_calculator_is_refused() -> None:
    copper = computed()
    copper.info["energy"] = -3.0
    with pytest.raises(StructureError, match="energy in addition to energy, and they differ"):
        structures([copper], "data")


def test_a_structure_that_was_moved_is_no_datum() -> None:
    copper = computed()
    assert label_of(structures([copper], "data")[0]).energy == label_of(copper).energy
    copper.positions[0, 0] += 0.4
    with pytest.raises(StructureError, match=r"data structure 0 \(Cu4\): it has no label: it was moved or changed"):
        structures([copper], "data")


def test_energy_without_forces_of_a_live_calculator_is_no_label() -> None:
    copper = bulk("Cu", cubic=True)
    copper.calc = SinglePointCalculator(copper, energy=-1.0)
    with pytest.raises(StructureError, match="energy and forces are needed, but it has only energy"):
        structures([copper], "data")


def test_what_a_structure_is_stays_when_its_label_is_chosen() -> None:
    iron = bulk("Fe", cubic=True)
    iron.set_initial_magnetic_moments([2.3, -2.3])
    iron.info.update(total_charge=1, REF_energy=-5.0)
    iron.calc = SinglePointCalculator(iron, energy=-5.0, forces=np.zeros((2, 3)))
    chosen = labelled(iron, "data 0")
    assert digest(chosen) == digest(iron)
    assert "REF_energy" not in chosen.info
    assert iron.info["REF_energy"] == -5.0, "what was given stays as it was"


def test_the_shape_of_a_stress_is_looked_at() -> None:
    copper = bulk("Cu", cubic=True)
    copper.calc = SinglePointCalculator(copper, energy=-1.0, forces=np.zeros((4, 3)), stress=np.zeros(6))
    assert label_of(structures([copper], "data")[0]).stress is not None
    for shape in ((5,), (2, 3)):
        copper.calc.results["stress"] = np.zeros(shape)
        with pytest.raises(StructureError, match=r"stress has shape .*, but a stress or virial has \(6,\), \(9,\)"):
            structures([copper], "data")
    copper.calc.results["stress"] = np.diag([1.0, 2.0, 3.0])
    assert list(label_of(structures([copper], "data")[0]).stress) == [1, 2, 3, 0, 0, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["start", "test"])
def test_labels_of_structures_that_are_not_data_are_not_looked_at(where: str, tmp_path: Path) -> None:
    for text in (frame("energy=none", forces=0.5), BOTH):
        assert structures(written(tmp_path, text), where)[0].calc is None


def test_one_atom_feels_no_force_and_needs_none_told(tmp_path: Path) -> None:
    (tmp_path / "atoms.xyz").write_text(
        '1\nProperties=species:S:1:pos:R:3 energy=-13.6 pbc="F F F"\nH 0 0 0\n'
        '1\nProperties=species:S:1:pos:R:3 energy=-13.6 REF_energy=-13.5 pbc="F F F"\nH 0 0 0\n'
    )
    (one,) = structures(tmp_path / "atoms.xyz@:1", "data")
    assert (label_of(one).energy, label_of(one).forces.tolist()) == (-13.6, [[0.0, 0.0, 0.0]])
    _, other = psiflow.Dataset.load(tmp_path / "atoms.xyz@:", energy="energy", forces="forces")
    assert label_of(other).energy == -13.6
    (named,) = psiflow.Dataset.load(tmp_path / "atoms.xyz@1:", energy="REF_energy", forces="REF_forces")
    assert (label_of(named).energy, label_of(named).forces.tolist()) == (-13.5, [[0.0, 0.0, 0.0]])
