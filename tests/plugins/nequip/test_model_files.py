"""Model files: plain, exact, portable to NequIP's own tools."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.components import Potential, Prediction, Predictor
from psiflow_core.errors import ModelCorrupt, OptionError
from psiflow_core.structures import Label, label_of, with_label

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def package(small: Make, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "emt.nequip.zip"
    small().export(model, target)
    return target


LOAD = """
import sys
from psiflow_core.registry import plugins
plugins.registry().find("potential", sys.argv[1]).component.parse({}).load(sys.argv[2])
"""


def test_loading_a_model_prints_nothing(model: Path, architecture: str) -> None:
    command = [sys.executable, "-c", LOAD, architecture, str(model)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == process.stderr == ""


def test_a_file_that_is_no_model_is_refused(small: Make, architecture: str, package: Path, tmp_path: Path) -> None:
    (tmp_path / "rubbish.pt").write_bytes(b"rubbish")
    for path in (tmp_path / "rubbish.pt", tmp_path / "missing.pt", package):
        with pytest.raises(ModelCorrupt, match=f"is not a model of potential '{architecture}'"):
            small().load(path)


def test_a_model_of_the_other_potential_is_refused(other: Potential, model: Path, architecture: str) -> None:
    with pytest.raises(ModelCorrupt, match=f"it is a model of potential '{architecture}'"):
        other.load(model)


def test_single_precision_is_close_to_double(small: Make, task: Make, model: Path, validation: list[Atoms]) -> None:
    import torch

    held = torch.load(model, weights_only=True)
    held["dtype"] = "float32"
    single = Path(task().folder) / "single.pt"
    torch.save(held, single)
    exact, rounded = (small().load(path).predict(validation) for path in (model, single))
    for one, other in zip(exact, rounded, strict=True):
        assert other.forces.dtype == np.float64
        np.testing.assert_allclose(other.forces, one.forces, atol=2e-4)
        assert other.energy == pytest.approx(one.energy, abs=2e-5)


def test_large_atomic_energies_cost_no_precision(small: Make, task: Make, training: list[Atoms]) -> None:
    """All-electron energies are thousands of electronvolts; float32 resolves 0.0005 of that."""
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


# NequIP's own tools ----------------------------------------------------------------------------------------


def says_the_same(calculator: Any, predictor: Predictor, structures: list[Atoms]) -> None:
    for atoms, here in zip(structures, predictor.predict(structures), strict=True):
        atoms = atoms.copy()
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(here.energy, abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), here.forces, atol=1e-9)
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), here.stress, atol=1e-10)


@pytest.fixture
def as_in_a_process_of_its_own() -> Any:
    """NequIP's calculators set torch's default dtype, and seed everything, for the whole process."""
    import torch
    from nequip.utils import global_state

    dtype, state, numbers, generator = (
        torch.get_default_dtype(),
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
    )
    yield
    global_state._GLOBAL_STATE_INITIALIZED = False
    torch.set_default_dtype(dtype)
    torch.set_rng_state(generator)
    np.random.set_state(numbers)
    random.setstate(state)


@pytest.mark.usefixtures("as_in_a_process_of_its_own")
def test_a_package_says_the_same_in_nequips_own_calculator(
    package: Path, predictor: Predictor, validation: list[Atoms]
) -> None:
    """Although this process has used the network before, and left torch as it was."""
    from nequip.integrations.ase import NequIPCalculator

    calculator = NequIPCalculator._from_saved_model(package, chemical_species_to_atom_type_map=True)
    says_the_same(calculator, predictor, validation)


def test_the_name_of_a_compiled_model_says_what_it_is_for(small: Make, model: Path, tmp_path: Path) -> None:
    for name in ("emt.nequip.pt2", "emt.nequip.pth"):
        with pytest.raises(OptionError, match=rf"'{name}' does not name a format: end it with \.lammps"):
            small().export(model, tmp_path / name)


# Compilation -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(tiny: Make) -> Make:
    """Makes potentials with a network that is compiled in half a minute."""
    return partial(tiny, "nequip", num_layers=1, num_features=4, steps=20)


@pytest.fixture(scope="module")
def quick_model(quick: Make, task: Make) -> Path:
    return Path(quick().train(task()).model)


@pytest.mark.usefixtures("as_in_a_process_of_its_own")
def test_a_compiled_model_says_the_same_in_nequips_own_calculator(
    quick: Make, quick_model: Path, validation: list[Atoms], tmp_path: Path
) -> None:
    from nequip.integrations.ase import NequIPCalculator

    target = tmp_path / "emt.ase.nequip.pt2"
    quick().export(quick_model, target)
    calculator = NequIPCalculator.from_compiled_model(target, chemical_species_to_atom_type_map=True)
    says_the_same(calculator, quick().load(quick_model), validation)


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_compiled_code_says_the_same_and_serves_every_model_of_its_architecture(
    quick: Make, task: Make, quick_model: Path, validation: list[Atoms], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PSIFLOW_COMPILED", str(tmp_path))
    pair = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])
    several = [*validation, validation[0].repeat(2), pair, Atoms("Al")]
    sibling = quick().train(task(seed=9, training=validation)).model
    for model in (quick_model, sibling):
        compiled, eager = quick(compile="always").load(model), quick(compile="never").load(model)
        for batch in (several, *([atoms] for atoms in several)):
            agree(compiled.predict(batch), eager.predict(batch))
    assert len(list(tmp_path.rglob("*.pt2"))) == 1


def agree(these: list[Prediction], those: list[Prediction]) -> None:
    for one, other in zip(these, those, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-9)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-9)
        assert (one.stress is None) == (other.stress is None)
        if one.stress is not None:
            np.testing.assert_allclose(one.stress, other.stress, atol=1e-10)
