"""Compiled predictions are those of the network, or are not used."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from psiflow_core.components import Prediction, Predictor

Make = Callable[..., Any]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, small: Make, model: Path) -> Path:
    """A folder with the code for the predictions of `model`."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSIFLOW_COMPILED", str(folder))
        small(compile="always").load(model)
    assert len(list(folder.glob("*.pt2"))) == 1
    return folder


@pytest.fixture
def here(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSIFLOW_COMPILED", str(cache))
    return cache


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without code, for which it would pay to compile at once."""
    monkeypatch.setenv("PSIFLOW_COMPILED", str(tmp_path / "c"))
    monkeypatch.setattr("psiflow_torch.swift.NOTED", 0.0)
    monkeypatch.setattr("psiflow_torch.programs.Predictions.pays", 0.0)
    return tmp_path / "c"


def is_compiled(predictor: Predictor) -> bool:
    return predictor._swift.compiled is not None  # type: ignore[attr-defined]


def agree(these: list[Prediction], those: list[Prediction]) -> None:
    for one, other in zip(these, those, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-9)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-9)
        assert (one.stress is None) == (other.stress is None)
        if one.stress is not None:
            np.testing.assert_allclose(one.stress, other.stress, atol=1e-10)


def test_code_says_what_the_network_says_and_serves_every_model_of_its_architecture(
    small: Make, task: Make, model: Path, validation: list[Atoms], here: Path
) -> None:
    pair = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])
    several = [*validation, validation[0].repeat(2), pair, Atoms("Al")]
    sibling = small(steps=3).train(task(seed=9, training=validation)).model
    for one in (model, sibling):
        compiled, eager = small(compile="auto").load(one), small(compile="never").load(one)
        assert is_compiled(compiled)
        assert not is_compiled(eager)
        for batch in (several, *([atoms] for atoms in several)):
            agree(compiled.predict(batch), eager.predict(batch))
    assert len(list(here.glob("*.pt2"))) == 1


def test_another_shape_needs_code_of_its_own(small: Make, task: Make, here: Path) -> None:
    wider = small(width=24, steps=1, compile="auto")
    assert not is_compiled(wider.load(wider.train(task()).model))


def test_it_is_compiled_once_the_time_for_that_has_been_spent(
    small: Make, model: Path, validation: list[Atoms], empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = small(compile="auto").load(model)
    monkeypatch.setattr("psiflow_torch.programs.Predictions.pays", 1e9)
    before = predictor.predict(validation)
    assert not is_compiled(predictor)
    monkeypatch.setattr("psiflow_torch.programs.Predictions.pays", 0.0)
    predictor.predict(validation)
    assert is_compiled(predictor)
    agree(predictor.predict(validation), before)


def test_compiling_that_was_not_finished_is_tried_again_only_after_as_much_work(
    small: Make, model: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a task in short blocks would compile in each, and do nothing else."""
    monkeypatch.setattr("psiflow_torch.programs.Predictions.pays", 10.0)
    code = small(compile="auto").load(model)._swift._code
    assert [code.pays(4.0) for _ in range(6)] == [False, False, True, False, False, True]


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_damaged_file_is_told_and_not_used(
    small: Make,
    model: Path,
    predictor: Predictor,
    validation: list[Atoms],
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    monkeypatch.setenv("PSIFLOW_COMPILED", str(tmp_path))
    (tmp_path / next(here.glob("*.pt2")).name).write_bytes(content)
    found = small(compile="auto").load(model)
    assert "works without compiled code" in caplog.text
    assert not is_compiled(found)
    agree(found.predict(validation), predictor.predict(validation))


def test_code_that_says_something_else_is_told_and_not_used(
    small: Make, task: Make, model: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its forces are scaled."""
    from psiflow_torch.compiled import Compiled

    def wrong(self: Compiled, *inputs: Any) -> Any:
        energies, forces, stresses = right(self, *inputs)
        return energies, forces * 1.001, stresses

    right = Compiled.__call__
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "psiflow.torch"):
        patch.setattr(Compiled, "__call__", wrong)
        assert not is_compiled(small(compile="auto").load(model))
    assert "differs by" in caplog.text
    assert is_compiled(small(compile="auto").load(model))


def test_another_process_that_compiles_is_not_waited_for(
    small: Make, model: Path, validation: list[Atoms], empty: Path
) -> None:
    predictor = small(compile="auto").load(model)
    predictor._swift._code._file.parent.mkdir()
    with predictor._swift._code._file.with_suffix(".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        predictor.predict(validation)
    assert not is_compiled(predictor)
    assert not list(empty.glob("*.pt2"))


@pytest.mark.parametrize("choice", ["auto", "always"])
def test_without_a_compiler_the_network_predicts(
    small: Make,
    model: Path,
    validation: list[Atoms],
    empty: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    choice: str,
) -> None:
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.delenv("CXX", raising=False)
    predictor = small(compile=choice).load(model)
    assert len(predictor.predict(validation)) == len(validation)
    assert not is_compiled(predictor)
    assert ("needs a C++ compiler" in caplog.text) == (choice == "always")


def test_a_compiler_that_fails_is_told_with_its_words(
    small: Make,
    model: Path,
    validation: list[Atoms],
    empty: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    predictor = small(compile="always").load(model)
    assert "compiling failed" in caplog.text
    assert len(predictor.predict(validation)) == len(validation)


def test_a_folder_that_cannot_be_written_stops_nothing(
    small: Make, model: Path, validation: list[Atoms], tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PSIFLOW_COMPILED", str(tmp_path / "file" / "below"))
    predictor = small(compile="auto").load(model)
    assert len(predictor.predict(validation)) == len(validation)
    assert not is_compiled(predictor)


@pytest.mark.parametrize("kinds", ["molecules", "both"])
def test_a_compiled_training_gives_the_same_model(
    small: Make, task: Make, training: list[Atoms], validation: list[Atoms], compiled_steps: Path, kinds: str
) -> None:
    """Also without stresses, and in its last step, which is the same as the first."""
    chosen = training if kinds == "both" else training[1::2]
    models = {}
    for choice in ("auto", "never"):
        potential = small(steps=30, compile=choice, learning_rate=0.01)
        models[choice] = potential.train(task(training=chosen, validation=[]))
    assert models["auto"].history[-1]["loss"] == pytest.approx(models["never"].history[-1]["loss"], rel=1e-9)
    said = [small(compile="never").load(result.model).predict(validation) for result in models.values()]
    agree(*said)


@pytest.fixture(scope="module")
def _compiled_steps(tmp_path_factory: pytest.TempPathFactory, small: Make, task: Make) -> Path:
    folder = tmp_path_factory.mktemp("compiled-steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSIFLOW_COMPILED", str(folder))
        small(steps=1, compile="always").train(task())
    assert len(list(folder.glob("*.pt2"))) == 1
    return folder


@pytest.fixture
def compiled_steps(_compiled_steps: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the code for steps, which has to be used."""
    from psiflow_torch.compiled import Compiled

    calls: list[int] = []

    def counted(self: Compiled, *inputs: Any) -> Any:
        calls.append(1)
        return right(self, *inputs)

    right = Compiled.__call__
    monkeypatch.setattr(Compiled, "__call__", counted)
    monkeypatch.setenv("PSIFLOW_COMPILED", str(_compiled_steps))
    yield _compiled_steps
    assert len(calls) >= 30
