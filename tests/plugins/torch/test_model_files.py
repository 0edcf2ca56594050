"""Model files hold numbers only, and are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.errors import ModelCorrupt

Make = Callable[..., Any]


def test_a_model_file_holds_no_code(model: Path) -> None:
    import torch

    held = torch.load(model, weights_only=True)
    assert held["format"].startswith("psiflow-torch")
    assert held["potential"] == "toy-pairs"


def test_a_file_that_is_no_model_is_refused(small: Make, tmp_path: Path) -> None:
    (tmp_path / "rubbish.pt").write_bytes(b"rubbish")
    for path in (tmp_path / "rubbish.pt", tmp_path / "missing.pt"):
        with pytest.raises(ModelCorrupt, match="is not a model of potential 'toy-pairs'"):
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


def test_equal_trainings_give_equal_files(small: Make, task: Make) -> None:
    first, second = (small(steps=3).train(task()).model.read_bytes() for _ in range(2))
    assert first == second


def test_a_model_of_another_potential_is_refused(small: Make, model: Path, tmp_path: Path) -> None:
    import torch

    held = torch.load(model, weights_only=True)
    torch.save({**held, "potential": "another"}, tmp_path / "another.pt")
    with pytest.raises(ModelCorrupt, match="it is a model of potential 'another'"):
        small().load(tmp_path / "another.pt")
