"""The example of a reaction, with a reference that costs nothing: walkers cross the barrier, and it is learned."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import psiflow_core as psiflow
from psiflow_core.structures import Label, with_label
from psiflow_core.variables import values

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


def rough_guesses(example: ModuleType) -> list[Atoms]:
    """Labelled structures about the way, so that walkers need few more: the example itself begins with none of them."""
    random = np.random.default_rng(0)
    turns = np.linspace(np.pi, 0.0, 48) + random.normal(0.0, 0.1, 48)
    shapes = [(random.normal(1.18, 0.04), 1.1 + 0.52 * np.cos(turn) ** 2 + random.normal(0.0, 0.08)) for turn in turns]
    structures = [example.placed(*shape, turn) for shape, turn in zip(shapes, turns, strict=True)]
    answers = example.Labelled(psiflow.reference("ase", **LEVEL)).predict(structures)
    return [
        with_label(atoms, Label(answer.energy, answer.forces))
        for atoms, answer in zip(structures, answers, strict=True)
    ]


@pytest.fixture(scope="module")
def result(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> psiflow.Result:
    learning = example.learning(psiflow.reference("ase", **LEVEL), labels=27)
    folder = tmp_path_factory.mktemp("isomerisation") / "campaign"
    return learning.run(example.START, folder, data=rough_guesses(example), progress=False)


@pytest.fixture(scope="module")
def found(example: ModuleType, result: psiflow.Result) -> Any:
    reference = example.Labelled(psiflow.reference("ase", **LEVEL))
    return example.profile(result.potential, reference, example.learned_from(result))


def test_walkers_come_from_one_well_over_the_barrier_to_the_other(example: ModuleType, result: psiflow.Result) -> None:
    walked = [atoms for atoms in result.dataset if atoms.info["psiflow_origin"] == "walker"]
    transfer = np.array(values(walked, example.TRANSFER))
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
