"""A task's identity is said at its fields: places are no part of it, everything else is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.build import molecule

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.environments.catalogue import spec_of
from psiflow_core.execution.tasks.check import CheckRequest, Departure
from psiflow_core.execution.tasks.engine import EngineRequest
from psiflow_core.execution.tasks.evaluate import EvaluationRequest
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.manifest import EvaluationLabels, ManifestFile, TrainingLabels
from psiflow_core.execution.tasks.perform import KINDS
from psiflow_core.execution.tasks.relax import RelaxationRequest
from psiflow_core.execution.tasks.sample import SamplingRequest, WalkerStart
from psiflow_core.execution.tasks.score import ScoreRequest
from psiflow_core.execution.tasks.survey import SurveyRequest
from psiflow_core.execution.tasks.train import TrainingRequest
from psiflow_core.identity import Typed
from psiflow_core.potentials.trained import Member, ModelFile

BEFORE, NOW = Path("/before/campaign"), Path("/now/campaign")


def reference(**options: Any) -> Spec:
    """Its options are called as fields are that hold places elsewhere: they count all the same."""
    return Spec("reference", "toy", {"folder": "a", "path": "b", **options}, "psiflow-toys", "1")


POTENTIAL = Spec("potential", "toy", {"basis": 6}, "psiflow-toys", "1")
OTHER = Spec("potential", "toy", {"basis": 7}, "psiflow-toys", "1")
SAMPLER = Spec("sampler", "ase", {"temperature": 300.0}, "psiflow-core", "1")


def spring(center: float) -> Spec:
    return spec_of(psiflow.Harmonic(variable=psiflow.Distance(atoms=(0, 1)), center=center, stiffness=2.0))


SPRING = spring(1.0)


def weights(digest: str = "a") -> ModelFile:
    return ModelFile(BEFORE / "models" / "weights", digest)


def member(digest: str = "a", potential: Spec = POTENTIAL) -> Member:
    return Member(potential, weights(digest))


def manifest(digest: str = "a") -> ManifestFile:
    return ManifestFile(path=BEFORE / "tasks" / "labels.json", base=BEFORE, digest=digest)


def start(**how: Any) -> WalkerStart:
    return WalkerStart(**{"walker": 0, "seed": 1, "structure": molecule("H2O"), "bias": (SPRING,), **how})


def departure(**how: Any) -> Departure:
    given = {"structures": (molecule("H2O"),), "bias": (SPRING,), "temperature_quantile": 1e-9}
    return Departure(**{**given, **how})


EXAMPLES: list[tuple[Typed, dict[str, Any], set[str]]] = [
    (IdleRequest(folder=BEFORE), {}, {"folder"}),
    (
        SurveyRequest(folder=BEFORE, meeting=BEFORE / "meeting"),
        {"of": "train", "number": 1, "together": 2, "nodes": 2, "hold": 1.0, "closely": True},
        {"folder", "meeting"},
    ),
    (
        EngineRequest(folder=BEFORE, component="sampler", name="ase"),
        {"component": "reference", "name": "b"},
        {"folder"},
    ),
    (
        CheckRequest(folder=BEFORE, component=SAMPLER, beside=(POTENTIAL,), departure=departure()),
        {
            "component": reference(),
            "beside": (OTHER,),
            "structures": (molecule("CH4"),),
            "departure": departure(temperature_quantile=1e-6),
        },
        {"folder"},
    ),
    (
        departure(),
        {
            "structures": (molecule("CH4"),),
            "bias": (spring(1.1),),
            "temperature_quantile": 1e-6,
        },
        set(),
    ),
    (
        LabelRequest(
            folder=BEFORE, reference=reference(), structure=molecule("H2O"), labels=BEFORE, own_labels=BEFORE / "own"
        ),
        {"reference": reference(path="c"), "structure": molecule("CH4")},
        {"folder", "labels", "own_labels"},
    ),
    (
        TrainingRequest(
            folder=BEFORE, potential=POTENTIAL, labels=manifest(), parent=weights(), seed=1, weights=BEFORE / "models"
        ),
        {"potential": OTHER, "labels": manifest("b"), "parent": weights("b"), "seed": 2, "steps": 10},
        {"folder", "weights"},
    ),
    (
        SamplingRequest(
            folder=BEFORE,
            sampler=SAMPLER,
            models=(member("a"), member("b")),
            walkers=(start(),),
            steps=10,
            check_every=5,
            limits=psiflow.Limits(),
            candidates=BEFORE / "structures",
        ),
        {
            "sampler": Spec("sampler", "ase", {"temperature": 301.0}, "psiflow-core", "1"),
            "models": (member("b"), member("a")),
            "walkers": (start(seed=2),),
            "steps": 11,
            "check_every": 6,
            "stride": 2,
            "limits": psiflow.Limits(deviation=0.4),
        },
        {"folder", "candidates"},
    ),
    (
        start(),
        {
            "walker": 1,
            "seed": 2,
            "structure": molecule("CH4"),
            "file": weights(),
            "bias": (spring(1.1),),
        },
        set(),
    ),
    (
        ScoreRequest(folder=BEFORE, models=(member(),), structures=("a",), candidates=BEFORE / "structures"),
        {"models": (member(potential=OTHER),), "structures": ("b",)},
        {"folder", "candidates"},
    ),
    (
        EvaluationRequest(folder=BEFORE, labels=manifest(), committees=((member(),),)),
        {"labels": manifest("b"), "committees": ((member(),), (member(),))},
        {"folder"},
    ),
    (
        RelaxationRequest(folder=BEFORE, structure=molecule("H2O"), optimiser=SAMPLER, steps=5, labels=BEFORE),
        {
            "structure": molecule("CH4"),
            "optimiser": Spec("sampler", "ase", {"temperature": 301.0}, "psiflow-core", "1"),
            "steps": 6,
            "models": (member(),),
            "reference": reference(),
        },
        {"folder", "labels", "own_labels"},
    ),
    (manifest(), {"digest": "b"}, {"path", "base"}),
    (
        TrainingLabels(training=(BEFORE / "a.json",), validation=(), atomic_energies={"H": -1.0}),
        {"training": (BEFORE / "b.json",), "validation": (BEFORE / "b.json",), "atomic_energies": {"H": -2.0}},
        set(),
    ),
    (EvaluationLabels(structures=(BEFORE / "a.json",)), {"structures": (BEFORE / "b.json",)}, set()),
]

NAMED = [pytest.param(*example, id=type(example[0]).__name__) for example in EXAMPLES]


def paths_in(plain: Any) -> Iterator[str]:
    """Every path into the campaign's folder, before or after it was moved."""
    if isinstance(plain, str) and plain.startswith((str(BEFORE), str(NOW))):
        yield plain
    elif isinstance(plain, dict | list):
        for value in plain.values() if isinstance(plain, dict) else plain:
            yield from paths_in(value)


def test_every_kind_of_task_has_an_example() -> None:
    assert {type(given) for given, _, _ in EXAMPLES} >= set(KINDS.values())


@pytest.mark.parametrize(("given", "changes", "places"), NAMED)
def test_every_field_counts_but_a_place(given: Typed, changes: dict[str, Any], places: set[str]) -> None:
    """A new field fails here until it is said to which of the two it belongs."""
    assert changes.keys() | places == type(given).model_fields.keys()
    for name, value in changes.items():
        assert given.model_copy(update={name: value}).identity != given.identity, name
    for name in places:
        assert given.model_copy(update={name: Path("/elsewhere")}).identity == given.identity, name


@pytest.mark.parametrize(("given", "changes", "places"), NAMED)
def test_a_folder_that_was_moved_holds_the_same_tasks(given: Typed, changes: dict[str, Any], places: set[str]) -> None:
    moved = given.moved(BEFORE, NOW)
    assert moved.identity == given.identity
    before, now = list(paths_in(given.to_plain())), list(paths_in(moved.to_plain()))
    assert now == [str(NOW / Path(path).relative_to(BEFORE)) for path in before]
    assert given.moved(Path("/another"), NOW).to_plain() == given.to_plain(), "what was elsewhere stays there"


@pytest.mark.parametrize(("given", "changes", "places"), NAMED)
def test_a_request_comes_out_of_json_as_it_went_in(given: Typed, changes: dict[str, Any], places: set[str]) -> None:
    again = type(given).from_plain(json.loads(json.dumps(given.to_plain())))
    assert again.to_plain() == given.to_plain()
    assert again.identity == given.identity


def test_kinds_with_the_same_fields_are_different_tasks() -> None:
    assert len({request.identity for request, _, _ in EXAMPLES}) == len(EXAMPLES)


def test_a_manifest_is_the_same_file_wherever_its_campaign_is(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        base = tmp_path / name
        labels = EvaluationLabels(structures=(base / "labels" / "a.json", Path("/shared/b.json")))
        file = ManifestFile.write(base, "labels", labels, base)
        assert file.read(EvaluationLabels) == labels
        written.append(file.path.read_bytes())
    assert written[0] == written[1]
