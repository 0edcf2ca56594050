"""Any ASE calculator as a reference: it fulfils the contract, and says what is wrong with its input."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, SCFError, all_changes

import psiflow_core as psiflow
from psiflow_core.builtin._ase_electrons import settings, way_of, with_moments
from psiflow_core.builtin.ase_reference import AseReference
from psiflow_core.components import CalculatorPredictor, LabelTask, Memory
from psiflow_core.constraints import fix, fixed_atoms
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.perform import perform
from psiflow_core.labels.store import label_file, read_label
from psiflow_core.sampling.bias import AseCalculator
from psiflow_core.structures import isolated_atom, label_of
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


class Prints(Calculator):
    """Lennard-Jones in a code that, as some do, gives forces of zero for atoms that its input fixes."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Atoms, properties: object = None, system_changes: object = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        forces = np.ones((len(atoms), 3))
        forces[fixed_atoms(atoms)] = 0.0
        self.results = {"energy": 0.0, "forces": forces}


def test_forces_on_fixed_atoms_are_labels_as_well(task: LabelTask) -> None:
    held = _copper_trimer()
    fix(held, [0, 2])
    label, free = (_reference("emt").label(atoms, task) for atoms in (held, _copper_trimer()))
    assert np.array_equal(label.forces, free.forces)
    assert np.linalg.norm(label.forces, axis=1).min() > 1


def test_no_code_is_told_of_fixed_atoms(tmp_path: Path) -> None:
    """Neither for a label, nor for a prediction or a bias."""
    held, prints = _copper_trimer(), f"{__name__}:Prints"
    fix(held, [0])
    reference = psiflow.reference("ase", calculator=prints)
    asked = LabelRequest(reference=reference, structure=held, labels=tmp_path / "labels", folder=tmp_path / "task")
    assert "value" in perform("label", asked.to_plain(), {})
    labelled, _ = read_label(label_file(tmp_path / "labels", reference, held))
    assert fixed_atoms(labelled).tolist() == [True, False, False]
    bias = AseCalculator(calculator=prints).evaluate(held, Memory())
    for forces in (label_of(labelled).forces, CalculatorPredictor(Prints()).predict([held])[0].forces, bias.forces):
        assert np.array_equal(forces, np.ones((3, 3)))


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


WAYS = ["Moments", "Arrays", "Info", "Parameters"]


def _toy(way: str, **parameters: object) -> AseReference:
    return _reference(f"psiflow_toys.calculators:{way}", **parameters)


def _oxygen(**info: int) -> Atoms:
    return Atoms("O2", [[0, 0, 0], [0, 0, 1.21]], info=dict(info))


@pytest.mark.parametrize("way", WAYS)
def test_the_spin_is_heard_in_every_way_of_telling_it(way: str, task: LabelTask) -> None:
    """Free atoms give the potential's zero of energy."""
    for atoms in (isolated_atom("O"), _oxygen(spin=3)):
        assert _toy(way).label(atoms, task).energy == 2.0
    assert _toy(way).label(_oxygen(), task).energy == 0.0


@pytest.mark.parametrize("way", WAYS)
def test_the_spin_is_heard_under_whatever_name_a_structure_tells_it(way: str, task: LabelTask) -> None:
    assert _toy(way).label(_oxygen(multiplicity=3), task).energy == 2.0
    moments = _oxygen()
    moments.set_initial_magnetic_moments([1, 1])
    assert _toy(way).label(moments, task).energy == 2.0


@pytest.mark.parametrize("formula", ["H3", "H7", "FeO6", "He2", "CH3OO"])
def test_moments_add_up_to_the_spin_to_the_last_bit(formula: str, task: LabelTask) -> None:
    """Some calculators cut off what follows the point."""
    atoms = Atoms(formula)
    atoms.positions[:, 0] = 2.0 * np.arange(len(atoms))
    for unpaired in (1, 2, 3, 4, 5):
        atoms.info["spin"] = unpaired + 1
        assert _toy("Moments").label(atoms, task).energy == unpaired


def test_moments_of_the_users_own_are_kept(task: LabelTask) -> None:
    atoms = _oxygen(spin=3)
    atoms.set_initial_magnetic_moments([0.7, 1.299999])
    moments = with_moments(atoms)
    assert moments is not None
    assert moments.sum() == 2.0
    assert moments == pytest.approx([0.7, 1.3], abs=1e-5)
    antiferromagnet = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.0]], cell=[4, 4, 4], pbc=True, magmoms=[2.2, -2.2])
    assert with_moments(antiferromagnet) == pytest.approx([2.2, -2.2])


def test_unpaired_electrons_are_on_open_d_shells_where_there_are_such() -> None:
    moments = with_moments(Atoms("FeOH", [[0, 0, 0], [0, 0, 1.8], [0, 0, 2.8]], info={"spin": 5}))
    assert moments == pytest.approx([4.0, 0.0, 0.0])


@pytest.mark.parametrize("way", ["Arrays", "Info", "Parameters"])
def test_the_charge_is_heard_in_every_way_of_telling_it(way: str, task: LabelTask) -> None:
    ion = _oxygen(charge=-1, spin=2)
    _toy(way).check([ion])
    assert _toy(way).label(ion, task).energy == pytest.approx(-10.0 + 1.0)


def test_a_charge_that_is_not_asked_for_is_refused(task: LabelTask) -> None:
    ion = _oxygen(charge=-1, spin=2)
    with pytest.raises(StructureError, match=r"charge -1, which calculator .*Moments' does not ask for"):
        _toy("Moments").check([ion])
    with pytest.raises(ReferenceFailed, match="charge -1") as failure:
        _toy("Moments").label(ion, task)
    assert failure.value.reason == "bad input"


def test_a_charge_of_the_options_that_is_not_the_structures_is_refused(task: LabelTask) -> None:
    """One charge for all structures would label free atoms as ions."""
    for parameters in ({"charge": 1}, {"mult": 1}):
        with pytest.raises(StructureError, match=r"leave .* out there"):
            _toy("Parameters", **parameters).check([_oxygen(charge=0, spin=3)])


def test_a_calculator_does_not_write_into_the_options(task: LabelTask) -> None:
    reference = _toy("Parameters", block={})
    assert reference.label(isolated_atom("O"), task).energy == 2.0
    assert reference.label(_oxygen(), task).energy == 0.0
    assert reference.parameters == {"block": {}}


def test_a_spin_that_a_program_is_not_told_is_refused(task: LabelTask) -> None:
    with pytest.raises(StructureError, match=r"spin multiplicity 3, which calculator .* is not told"):
        _toy("Dftb").check([_oxygen(spin=3)])
    _toy("Dftb").check([Atoms("He")])


def test_programs_are_told_by_their_own_names() -> None:
    """The parameters that ASE's classes write into the input of the programs."""
    ion = _oxygen(charge=-1, spin=2)
    for name, expected in {
        "nwchem": {"charge": -1},
        "orca": {"charge": -1, "mult": 2},
        "gaussian": {"charge": -1, "mult": 2},
        "qchem": {"charge": -1, "multiplicity": 2},
        "aims": {"charge": -1, "spin": "collinear"},
        "cp2k": {"charge": -1, "multiplicity": 2, "uks": True},
        "vasp": {"charge": -1},
    }.items():
        engine = _reference(name)._class()
        assert settings(way_of(engine, set()), ion, {}) == expected


def test_the_label_is_the_free_energy(task: LabelTask) -> None:
    """Forces are the gradient of it."""
    assert _toy("Smeared").label(bulk("Cu"), task).energy == -10.5


@pytest.mark.skipif(shutil.which("nwchem") is None, reason="there is no nwchem on PATH; apt-get install nwchem")
def test_a_free_oxygen_atom_of_nwchem_is_a_triplet(task: LabelTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASE_NWCHEM_COMMAND", "nwchem PREFIX.nwi > PREFIX.nwo")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    nwchem = _reference("nwchem", theory="dft", basis="6-31g", dft={"xc": "pbe0"})
    assert nwchem.label(isolated_atom("O"), task).energy == pytest.approx(
        -2040.378, abs=0.01
    )  # a singlet is 3 eV above
