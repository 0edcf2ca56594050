"""Compiled code of MACE, which is traced without TorchScript, gives what MACE's own network gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_a_compiled_training_and_compiled_predictions_are_those_of_the_network(
    small: Make,
    task: Make,
    training: list[Atoms],
    validation: list[Atoms],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In double precision, with crystals, molecules, a slab and an isolated atom."""
    monkeypatch.setenv("PSIFLOW_COMPILED", str(cache))
    results = {}
    for choice in ("always", "never"):
        results[choice] = small(steps=20, compile=choice, learning_rate=0.01).train(task(validation=[]))
    here, there = results["never"], results["always"]
    assert there.history[-1]["loss"] == pytest.approx(here.history[-1]["loss"], rel=1e-8)
    compiled, eager = (small(compile=choice).load(here.model) for choice in ("always", "never"))
    assert compiled._swift.compiled is not None
    assert len(list(cache.glob("*.pt2"))) == 2
    slab = validation[0].copy()
    slab.pbc = [True, True, False]
    several = [*validation, validation[0].repeat(2), slab, Atoms("Al")]
    for batch in (several, *([atoms] for atoms in several)):
        for one, other in zip(compiled.predict(batch), eager.predict(batch), strict=True):
            assert one.energy == pytest.approx(other.energy, abs=1e-9)
            np.testing.assert_allclose(one.forces, other.forces, atol=1e-9)
            assert (one.stress is None) == (other.stress is None)
            if one.stress is not None:
                np.testing.assert_allclose(one.stress, other.stress, atol=1e-10)


@pytest.mark.parametrize("highest", range(5))
def test_spherical_harmonics_in_plain_operations_are_those_of_e3nn(highest: int) -> None:
    import torch
    from psiflow_mace._engine import o3
    from psiflow_mace._harmonics import SphericalHarmonics

    vectors = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    irreps = o3.Irreps.spherical_harmonics(highest)
    expected = o3.SphericalHarmonics(irreps, normalize=True, normalization="component")(vectors)
    torch.testing.assert_close(SphericalHarmonics(highest)(vectors), expected, rtol=1e-12, atol=1e-12)
