"""Model files: plain, exact, portable to MACE's own tools and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from psiflow_core.components import Predictor, TrainingResult
from psiflow_core.errors import ModelCorrupt, OptionError, TrainingFailed

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def exported(small: Make, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "emt.model"
    small().export(model, target)
    return target


PREDICT = """
import sys
from ase.io import read
from psiflow_core import plugins
predictor = plugins.registry().find("potential", "mace").component.parse({}).load(sys.argv[1])
print(*(prediction.energy.hex() for prediction in predictor.predict(read(sys.argv[2], ":"))))
"""


def test_a_model_loads_in_a_fresh_process_that_knows_its_name_only(
    model: Path, predictor: Predictor, validation: list[Atoms], tmp_path: Path
) -> None:
    from ase.io import read

    write(tmp_path / "some.xyz", [atoms.copy() for atoms in validation[:2]])
    command = [sys.executable, "-c", PREDICT, str(model), str(tmp_path / "some.xyz")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    here = predictor.predict(read(tmp_path / "some.xyz", ":"))
    there = [float.fromhex(energy) for energy in process.stdout.split()]
    assert there == pytest.approx([prediction.energy for prediction in here], abs=1e-10)
    assert process.stderr == ""  # and MACE's import is quiet


def test_a_model_file_holds_no_code(model: Path) -> None:
    import torch

    held = torch.load(model, weights_only=True)
    assert held["format"].startswith("psiflow-mace")


def test_a_file_that_is_no_model_is_refused(small: Make, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "rubbish.pt").write_bytes(b"rubbish")
    for path in (tmp_path / "rubbish.pt", tmp_path / "missing.pt", exported):
        with pytest.raises(ModelCorrupt, match="is no model of potential 'mace'"):
            small().load(path)


def test_single_precision_is_close_to_double(small: Make, task: Make, model: Path, validation: list[Atoms]) -> None:
    import torch

    held = torch.load(model, weights_only=True)
    held["dtype"] = "float32"
    held["weights"] = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in held["weights"].items()
    }
    single = Path(task().folder) / "single.pt"
    torch.save(held, single)
    exact, rounded = (small().load(path).predict(validation) for path in (model, single))
    for one, other in zip(exact, rounded, strict=True):
        assert other.forces.dtype == np.float64
        np.testing.assert_allclose(other.forces, one.forces, atol=2e-4)
        assert other.energy == pytest.approx(one.energy, abs=2e-5)


def test_large_atomic_energies_cost_no_precision(small: Make, task: Make, training: list[Atoms]) -> None:
    """All-electron energies are thousands of electronvolts; float32 resolves 0.0005 of that."""
    from psiflow_core.structures import Label, label_of, with_label

    deep = {"Cu": -45000.123456789, "Al": -6600.987654321}
    shifted = []
    for atoms in training:
        known = label_of(atoms)
        depth = sum(deep[symbol] for symbol in atoms.get_chemical_symbols())
        shifted.append(with_label(atoms, Label(known.energy + depth, known.forces, known.stress)))
    zero = dict.fromkeys(deep, 0.0)
    plain = small(steps=5, dtype="float32").train(task(training=training, validation=[], atomic_energies=zero))
    heavy = small(steps=5, dtype="float32").train(task(training=shifted, validation=[], atomic_energies=deep))
    assert heavy.errors == pytest.approx(plain.errors, rel=1e-5)


def test_an_exported_model_says_the_same_in_maces_own_calculator(
    exported: Path, predictor: Predictor, validation: list[Atoms]
) -> None:
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(exported), device="cpu", default_dtype="float64")
    for atoms, here in zip(validation, predictor.predict(validation), strict=True):
        atoms = atoms.copy()
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(here.energy, abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), here.forces, atol=1e-9)
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), here.stress, atol=1e-10)


# Foundation models -----------------------------------------------------------------------------------------


def test_a_foundation_model_is_fine_tuned_from_its_own_error(
    small: Make, task: Make, exported: Path, trained: TrainingResult
) -> None:
    potential = small(foundation_model=str(exported), learning_rate=1e-5)
    tuned = potential.train(task(steps=1))
    assert tuned.errors["force_rmse"] == pytest.approx(trained.errors["force_rmse"], rel=0.02)
    child = potential.train(task(steps=1, parent=tuned.model))
    assert child.errors["force_rmse"] == pytest.approx(trained.errors["force_rmse"], rel=0.02)


def test_a_foundation_model_keeps_only_the_species_that_are_needed(
    small: Make, task: Make, exported: Path, predictor: Predictor, atomic_energies: dict[str, float]
) -> None:
    """A copper model cut out of a copper-aluminium model says of copper what the whole one says."""
    dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])
    from psiflow_core.structures import Label, with_label

    labelled = with_label(dimer, Label(0.0, np.zeros((2, 3))))
    potential = small(foundation_model=str(exported), learning_rate=1e-12)
    copper = potential.train(
        task(training=[labelled], validation=[], steps=1, atomic_energies={"Cu": atomic_energies["Cu"]})
    )
    whole, part = predictor.predict([dimer])[0], potential.load(copper.model).predict([dimer])[0]
    assert part.energy == pytest.approx(whole.energy, abs=1e-6)
    np.testing.assert_allclose(part.forces, whole.forces, atol=1e-6)


def test_a_foundation_model_and_a_model_from_scratch_are_not_each_others_parents(
    small: Make, task: Make, exported: Path, model: Path
) -> None:
    with pytest.raises(TrainingFailed, match="another architecture"):
        small(foundation_model=str(exported)).train(task(parent=model, steps=1))


def test_a_foundation_model_that_cannot_serve_is_refused_before_training(
    small: Make, exported: Path, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="cannot be read as a MACE model"):
        small(foundation_model=str(tmp_path / "missing.model")).check([Atoms("Cu")])
    with pytest.raises(OptionError, match="holds a dict, not a ScaleShiftMACE"):
        small(foundation_model=str(model)).check([Atoms("Cu")])
    with pytest.raises(OptionError, match="knows Al, Cu, and not Au"):
        small(foundation_model=str(exported)).check([Atoms("Au")])
    small(foundation_model=str(exported)).check([Atoms("CuAl")])
