"""Any ASE calculator as a reference: it fulfils the contract, and says what is wrong with its input."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, SCFError, all_changes

from psiflow_core.builtin.ase_reference import AseReference
from psiflow_core.components import LabelTask
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError
from psiflow_core.structures import isolated_atom
from psiflow_core.testing import ReferenceContract


def _copper_trimer() -> Atoms:
    atoms = Atoms("Cu3", [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0.1]])
    atoms.info["spin"] = 2
    return atoms


class TestEffectiveMedium(ReferenceContract):
    component = AseReference
    options = {"calculator": "emt"}  # noqa: RUF012

    @pytest.fixture
    def molecule(self) -> Atoms:
        return _copper_trimer()


class TestLennardJones(ReferenceContract):
    component = AseReference
    options = {"calculator": "lj", "parameters": {"sigma": 2.0, "epsilon": 0.1, "rc": 6.0}}  # noqa: RUF012

    @pytest.fixture
    def molecule(self) -> Atoms:
        return _copper_trimer()


class TestTightBinding(ReferenceContract):
    component = AseReference
    options = {"calculator": "tblite", "parameters": {"method": "GFN1-xTB", "accuracy": 0.1}}  # noqa: RUF012

    @pytest.fixture
    def crystal(self) -> Atoms:
        diamond = bulk("C", cubic=True)
        diamond.rattle(0.05, seed=1)
        return diamond


@pytest.fixture
def task(tmp_path: Path) -> LabelTask:
    return LabelTask(tmp_path)


def _reference(calculator: str, **parameters: object) -> AseReference:
    reference = AseReference.parse({"calculator": calculator, "parameters": parameters})
    assert isinstance(reference, AseReference)
    return reference


def test_charge_and_spin_reach_the_calculator(task: LabelTask) -> None:
    water, oxygen = molecule("H2O"), Atoms("O2", [[0, 0, 0], [0, 0, 1.2]])
    cation = water.copy()
    cation.info.update(charge=1, spin=2)
    triplet = oxygen.copy()
    triplet.info["spin"] = 3
    xtb = _reference("tblite")
    ionisation = xtb.label(cation, task).energy - xtb.label(water, task).energy
    assert 10 < ionisation < 25  # 12.6 eV in experiment; GFN2 is made for geometries
    assert xtb.label(triplet, task).energy != pytest.approx(xtb.label(oxygen, task).energy, abs=0.01)


def test_the_moments_of_a_molecule_are_its_spin_multiplicity(task: LabelTask) -> None:
    oxygen = molecule("O2")
    assert oxygen.get_initial_magnetic_moments().sum() == 2
    triplet = Atoms(oxygen.symbols, oxygen.positions, info={"spin": 3})
    xtb = _reference("tblite")
    assert xtb.label(oxygen, task).energy == pytest.approx(xtb.label(triplet, task).energy, abs=1e-6)


def test_isolated_atoms_have_energies_without_neighbours(task: LabelTask) -> None:
    assert _reference("lj").label(isolated_atom("Ar"), task).energy == 0.0
    assert _reference("emt").label(isolated_atom("Cu"), task).energy == pytest.approx(3.51)  # EMT's E0


def test_the_calculator_is_quiet(task: LabelTask, capfd: pytest.CaptureFixture[str]) -> None:
    _reference("tblite").label(molecule("H2O"), task)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("calculator", "parameters", "says"),
    [
        ("emtt", {}, "Did you mean 'emt'"),
        ("ase.calculators.emt:ETM", {}, "no such calculator"),
        ("lj", {"sigmaa": 2.0}, "no parameter 'sigmaa'.*Did you mean 'sigma'"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(calculator: str, parameters: dict, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        _reference(calculator, **parameters).check([bulk("Cu")])


def test_without_structures_the_parameters_are_checked() -> None:
    for calculator in ("emt", "tblite"):
        _reference(calculator).check([])
    with pytest.raises(OptionError, match="no parameter 'sigmaa'"):
        _reference("lj", sigmaa=2.0).check([])
    with pytest.raises(EngineMissing, match="pip install nosuchpackage"):
        _reference("nosuchpackage.calculator:Calculator").check([])


def test_a_missing_package_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(EngineMissing, match="pip install nosuchpackage"):
        _reference("nosuchpackage.calculator:Calculator").check([bulk("Cu")])


def test_an_element_without_parameters_is_told_before_anything_runs() -> None:
    with pytest.raises(StructureError, match="Si"):
        _reference("emt").check([bulk("Cu"), bulk("Si")])


def test_a_charge_that_the_calculator_would_not_see_is_refused() -> None:
    ion = bulk("Cu")
    ion.info["charge"] = 1
    with pytest.raises(StructureError, match="charge 1"):
        _reference("emt").check([ion])
    _reference("emt").check([bulk("Cu")])


class Broken(Calculator):
    """A calculator that fails in the way it is told to."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    default_parameters = {"way": "nan"}  # noqa: RUF012

    def calculate(self, atoms: Atoms, properties: list[str], system_changes: list[str] = all_changes) -> None:
        ways = {
            "scf": SCFError("no luck"),
            "memory": MemoryError(),
            "bug": ZeroDivisionError("float division"),
        }
        if self.parameters["way"] in ways:
            raise ways[self.parameters["way"]]
        self.results = {"energy": 0.0, "forces": np.full((len(atoms), 3), np.nan)}


@pytest.mark.parametrize(
    ("way", "reason"), [("scf", "unconverged"), ("memory", "memory"), ("bug", "engine"), ("nan", "engine")]
)
def test_every_failure_has_its_reason(way: str, reason: str, task: LabelTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ase.calculators.emt.Broken", Broken, raising=False)
    with pytest.raises(ReferenceFailed) as failure:
        _reference("ase.calculators.emt:Broken", way=way).label(bulk("Cu"), task)
    assert failure.value.reason == reason


def test_a_real_calculation_that_does_not_converge_is_unconverged(task: LabelTask) -> None:
    with pytest.raises(ReferenceFailed) as failure:
        _reference("tblite", max_iterations=2).label(molecule("H2O"), task)
    assert failure.value.reason == "unconverged"
