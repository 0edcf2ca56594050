"""The example of a reaction, with a reference that costs nothing: walkers cross the barrier, and it is learned."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import psiflow_core as psiflow

pytest.importorskip("tblite", reason="no GFN2-xTB: pip install tblite")

EXAMPLE = Path(__file__).parents[2] / "examples" / "isomerisation.py"
LEVEL = {"calculator": "tblite", "parameters": {"method": "GFN2-xTB"}}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("isomerisation", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["isomerisation"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psiflow.Context]:
    with psiflow.Context(folder=tmp_path_factory.mktemp("context")) as found:
        yield found


def rough_guesses(example: ModuleType, context: psiflow.Context) -> psiflow.Dataset:
    """Labelled structures about the way, so that walkers need few more: the example itself begins with none of them."""
    random = np.random.default_rng(0)
    turns = np.linspace(np.pi, 0.0, 48) + random.normal(0.0, 0.1, 48)
    shapes = [(random.normal(1.18, 0.04), 1.1 + 0.52 * np.cos(turn) ** 2 + random.normal(0.0, 0.08)) for turn in turns]
    structures = [example.placed(*shape, turn) for shape, turn in zip(shapes, turns, strict=True)]
    return context.label(structures, psiflow.reference("ase", **LEVEL)).result().labelled


@pytest.fixture(scope="module")
def result(example: ModuleType, context: psiflow.Context, tmp_path_factory: pytest.TempPathFactory) -> psiflow.Result:
    asked = example.learning(psiflow.reference("ase", **LEVEL), labels=27)
    shorter = psiflow.Training(steps=300, warm_steps=120, final_steps=800)
    learning = asked.model_copy(update={"training": shorter})
    folder = tmp_path_factory.mktemp("isomerisation") / "campaign"
    return learning.run(example.START, folder, data=rough_guesses(example, context), progress=False)


@pytest.fixture(scope="module")
def found(example: ModuleType, context: psiflow.Context, result: psiflow.Result) -> Any:
    reference = psiflow.reference("ase", **LEVEL)
    return example.profile(result.potential, context, reference, example.learned_from(result))


def test_walkers_come_from_one_well_over_the_barrier_to_the_other(example: ModuleType, result: psiflow.Result) -> None:
    walked = list(result.dataset[[one.origin == "walker" for one in result.dataset.provenance]])
    transfer = example.transfers(walked)
    assert transfer.min() < -0.8
    assert transfer.max() > 0.9
    assert (np.abs(transfer) < 0.5).sum() >= 3, "and are labelled on the way"


def test_the_wells_are_two_linear_molecules(example: ModuleType, found: Any) -> None:
    for point, centre in ((found.start, example.CARBON), (found.end, example.NITROGEN)):
        for atoms in (point.learned, point.reference):
            assert example.linear(atoms)
            assert atoms.get_distance(centre, example.HYDROGEN) == pytest.approx(1.03, abs=0.07)


def test_the_learned_barrier_is_the_references(found: Any) -> None:
    assert found.barrier("learned") == pytest.approx(found.barrier("reference"), abs=0.15)
    assert found.reaction("learned") == pytest.approx(found.reaction("reference"), abs=0.1)


def test_the_learned_profile_is_the_references(found: Any) -> None:
    assert np.abs(found.errors).mean() < 0.1


def test_the_barrier_of_the_reference_is_a_stationary_point_between_the_wells(found: Any) -> None:
    for point in (found.start, found.saddle, found.end):
        assert np.abs(point.reference.get_forces()).max() < 0.01
        assert point.rmsd < 0.1
    assert found.barrier("reference") > 2.5, "GFN2-xTB: no walker would cross it by itself"
    assert 0.5 < found.reaction("reference") < 1.2, "HCN is the stable one"
