"""What plugins answer is checked before anything believes it, and what is wrong with it names the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms
from psiflow_toys import campaigns
from psiflow_toys.campaigns import learning, moved_water, run
from psiflow_toys.faithless import LABELS, PREDICTIONS, SEGMENTS, TRAININGS
from psiflow_toys.reference import ToyReference

import psiflow_core as psiflow
from psiflow_core.answers.segments import Origin
from psiflow_core.components import CalculatorPredictor, LabelTask, Memory, Sum
from psiflow_core.errors import CampaignError, WrongAnswer
from psiflow_core.execution import pools
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.manifest import ManifestFile, TrainingLabels
from psiflow_core.execution.tasks.perform import RESULT, carry_out, perform
from psiflow_core.execution.tasks.train import TrainingRequest
from psiflow_core.files import read_sealed, write_sealed
from psiflow_core.labels.store import label_file, read_label
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.orders import Orders
from psiflow_core.learning.driver.outcomes import Outcomes
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.potentials import trained as models
from psiflow_core.potentials.trained import Member, ModelFile, TrainedPotential
from psiflow_core.structures import Plain, digest, label_of

TOYS = f"of distribution psiflow-toys {version('psiflow-toys')}"
LABELLED = {"cached": False, "computed_by": None}
CONVERTED = {"a fork", "single precision", "lists", "numpy's numbers", "a generator"}
NOT_FINITE = {"no number", "no number for a force"}


def water(charge: int = 0) -> Atoms:
    atoms = molecule("H2O")
    atoms.info.update(charge=charge, spin=1, name="a water")
    return atoms


def labelled(folder: Path, how: str, structure: Atoms) -> Plain:
    reference = psiflow.reference("faithless", how=how)
    asked = LabelRequest(reference=reference, structure=structure, labels=folder / "labels", folder=folder / "task")
    return perform("label", asked.to_plain(), {})


def trained(folder: Path, **how: str) -> Plain:
    """What comes of a training, and the files of its labels in the folder."""
    reference = psiflow.reference("toy")
    files = []
    for structure in moved_water(4, seed=1):
        asked = LabelRequest(reference=reference, structure=structure, labels=folder, folder=folder / "label")
        assert "value" in perform("label", asked.to_plain(), {})
        files.append(label_file(folder, reference, structure))
    labels = TrainingLabels(training=tuple(files), validation=(), atomic_energies={"H": -1, "O": -8})
    training = TrainingRequest(
        potential=psiflow.potential("faithless", **how),
        labels=ManifestFile.write(folder, "manifest", labels, folder),
        seed=1,
        weights=folder / "models",
        folder=folder / "train",
    )
    return perform("train", training.to_plain(), {})


def committee(folder: Path, members: int = 2, **how: str) -> TrainedPotential:
    found = [trained(folder / str(n), **{"trains": ""})["value"]["model"] for n in range(members)]
    files = [ModelFile(folder / str(n) / "models" / one["path"], one["digest"]) for n, one in enumerate(found)]
    return TrainedPotential([Member(psiflow.potential("faithless", **how), file) for file in files])


def told(outcome: Plain) -> str:
    failure: Plain = outcome["failure"]
    assert failure["type"] == "WrongAnswer", failure
    return str(failure["message"])


# References ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", sorted(set(LABELS) - CONVERTED - NOT_FINITE - {"an exit"}))
def test_a_reference_that_returns_no_label_is_named(how: str, tmp_path: Path) -> None:
    outcome = labelled(tmp_path, how, water())
    assert told(outcome).startswith(f"reference 'faithless' {TOYS} returned ")
    assert not list((tmp_path / "labels").rglob("*.json"))


@pytest.mark.parametrize("how", sorted(NOT_FINITE))
def test_a_label_that_is_not_finite_is_a_failure_of_this_label(how: str, tmp_path: Path) -> None:
    failure = labelled(tmp_path, how, water())["failure"]
    assert failure["type"] == "ReferenceFailed"
    assert failure["message"].startswith(f"reference 'faithless' {TOYS} returned")


@pytest.mark.parametrize("how", ["lists", "single precision"])
def test_numbers_of_another_type_are_converted(how: str, tmp_path: Path) -> None:
    assert labelled(tmp_path, how, water())["value"] == LABELLED
    (file,) = (tmp_path / "labels").rglob("*.json")
    found = label_of(read_label(file)[0])
    exact = ToyReference().label(water(), LabelTask(tmp_path))
    assert found.energy == pytest.approx(exact.energy, rel=1e-6)
    np.testing.assert_allclose(found.forces, exact.forces, rtol=1e-5, atol=1e-5)


def test_a_stress_of_a_crystal_has_six_components(tmp_path: Path) -> None:
    crystal = Atoms("Ar", cell=[4, 4, 4], pbc=True)
    assert "a stress of shape (3, 3); the contract asks for (6,)" in told(labelled(tmp_path, "a full stress", crystal))
    assert "a stress of shape (5,)" in told(labelled(tmp_path, "five stresses", crystal))
    assert labelled(tmp_path, "a stress of a molecule", crystal)["value"]


def test_a_reference_that_moves_its_atoms_labels_what_it_was_asked(tmp_path: Path) -> None:
    assert labelled(tmp_path, "moves the atoms", water())["value"] == LABELLED
    file = label_file(tmp_path / "labels", psiflow.reference("faithless", how="moves the atoms"), water())
    found, _ = read_label(file)
    assert digest(found) == digest(water())
    np.testing.assert_array_equal(label_of(found).forces, ToyReference().label(water(), LabelTask(tmp_path)).forces)


# Potentials ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", sorted(set(TRAININGS) - CONVERTED - {"an exit"}))
def test_a_training_with_a_wrong_result_is_named(how: str, tmp_path: Path) -> None:
    assert told(trained(tmp_path, trains=how)).startswith(f"potential 'faithless' {TOYS} returned ")
    assert not (tmp_path / "models").exists()


def test_numpys_numbers_of_a_training_become_pythons(tmp_path: Path) -> None:
    value = trained(tmp_path, trains="numpy's numbers")["value"]
    assert value["history"] == [{"step": 1.0, "loss": 0.5}]
    assert set(map(type, value["errors"].values())) == {float}


@pytest.mark.parametrize("how", sorted(set(PREDICTIONS) - CONVERTED))
def test_wrong_predictions_are_named_wherever_they_are_asked_for(how: str, tmp_path: Path) -> None:
    potential = committee(tmp_path, members=2, predicts=how)
    name = rf"^potential 'faithless' {TOYS} returned "
    with pytest.raises(WrongAnswer, match=name):
        potential.predict([water(), water()])
    with pytest.raises(WrongAnswer, match=name):
        TrainedPotential(potential.members[:1]).predict([water(), water()])
    if how != "too many":
        with pytest.raises(WrongAnswer, match=name):
            psiflow.sample(potential, psiflow.sampler("ase"), water(), steps=2)


@pytest.mark.parametrize("how", sorted(set(PREDICTIONS) & CONVERTED))
def test_predictions_of_another_type_are_converted(how: str, tmp_path: Path) -> None:
    exact, found = committee(tmp_path).predict([water()]), committee(tmp_path, predicts=how).predict([water()])
    np.testing.assert_allclose(found[0].forces, exact[0].forces, rtol=1e-5, atol=1e-5)
    assert found[0].forces.dtype == np.float64


def test_a_predictor_that_moves_its_atoms_moves_a_copy(tmp_path: Path) -> None:
    atoms = water()
    exact, found = committee(tmp_path), committee(tmp_path, predicts="moves the atoms")
    np.testing.assert_array_equal(found.predict([atoms])[0].forces, exact.predict([atoms])[0].forces)
    np.testing.assert_array_equal(atoms.positions, water().positions)


def test_a_predictor_of_a_script_is_checked_too() -> None:
    class Across(CalculatorPredictor):
        def predict(self, structures: Any) -> Any:
            return [None for _ in structures]

    from ase.calculators.lj import LennardJones

    broken = Across(LennardJones())
    with pytest.raises(WrongAnswer, match=r"^predictor Across returned None"):
        psiflow.sample(broken, psiflow.sampler("ase"), water(), steps=2)
    with pytest.raises(WrongAnswer, match=r"^predictor Across returned None"):
        Sum([CalculatorPredictor(LennardJones()), broken]).predict([water()])
    with pytest.raises(WrongAnswer, match=r"^predictor Across returned None"):
        broken.calculator().get_potential_energy(water())


def test_a_calculator_that_is_added_to_a_potential_is_checked_as_a_reference_is() -> None:
    crossed = psiflow.AseCalculator(calculator="psiflow_toys.faithless:CrossedForces")
    with pytest.raises(WrongAnswer, match=r"^calculator 'psiflow_toys.faithless:CrossedForces' of bias 'ase' returned"):
        crossed.evaluate(water(), Memory())


# Samplers --------------------------------------------------------------------------------------------------

LAZY = {
    "never asks": "called the monitor 0 times: it has to after every 2 steps and after the last, and did not after",
    "asks once": "called the monitor 1 times",
    "never moves": "did not move the atoms in 6 steps",
    "asks about other atoms": "showed the monitor a structure of other atoms: H2O became He",
}


def sampled(how: str, limits: psiflow.Limits | None = None, start: Atoms | None = None) -> psiflow.Trajectory:
    from ase.calculators.lj import LennardJones

    start = water() if start is None else start
    start.set_momenta(np.zeros((3, 3)))
    given = {} if limits is None else {"limits": limits}
    (found,) = psiflow.sample(
        LennardJones(sigma=0.8, epsilon=0.01),
        psiflow.sampler("faithless", how=how),
        start,
        steps=6,
        check_every=2,
        **given,  # type: ignore[arg-type]
    )
    return found


@pytest.mark.parametrize("how", sorted(set(SEGMENTS) - CONVERTED))
def test_a_segment_that_is_not_the_walkers_is_named(how: str) -> None:
    with pytest.raises(WrongAnswer, match=rf"^sampler 'faithless' {TOYS} "):
        sampled(how)


@pytest.mark.parametrize("how", sorted(LAZY))
def test_a_sampler_that_does_not_do_its_work_is_named(how: str) -> None:
    with pytest.raises(WrongAnswer) as fault:
        sampled(how)
    assert str(fault.value).startswith(f"sampler 'faithless' {TOYS} ")
    assert LAZY[how] in str(fault.value)


def held_water() -> Atoms:
    atoms = water()
    atoms.set_constraint(FixAtoms([0]))
    return atoms


def test_a_sampler_that_moves_a_fixed_atom_is_named() -> None:
    with pytest.raises(WrongAnswer) as fault:
        sampled("", start=held_water())
    assert str(fault.value).startswith(f"sampler 'faithless' {TOYS} showed the monitor a structure in which atom 0 has")
    assert "although it is fixed" in str(fault.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda atoms: atoms.positions.__setitem__((0, 1), np.nextafter(atoms.positions[0, 1], 9)), "has moved by"),
        (lambda atoms: atoms.set_constraint(), "in which atom 0 is no longer fixed"),
        (lambda atoms: atoms.set_constraint(FixAtoms([0, 2])), "in which atom 2 is now fixed"),
    ],
)
def test_a_structure_that_lets_fixed_atoms_go_is_not_the_walkers(change: Callable[[Atoms], None], says: str) -> None:
    origin, found = Origin(held_water(), "it"), held_water()
    assert origin.recognise(found, "gave") is found
    found.positions[1] += 0.1
    assert origin.recognise(found, "gave") is found
    change(found)
    with pytest.raises(WrongAnswer, match=says):
        origin.recognise(found, "gave")


def test_a_sampler_that_goes_on_after_a_stop_is_named() -> None:
    with pytest.raises(WrongAnswer, match=r"went on to step 4 after the monitor had stopped it \(atoms too close\)"):
        sampled("goes on", psiflow.Limits(distance=2.0))
    assert sampled("", psiflow.Limits(distance=2.0)).segment.stopped == "atoms too close"


def test_numpys_numbers_of_a_segment_become_pythons() -> None:
    segment = sampled("numpy's numbers").segment
    assert type(segment.steps) is int
    assert type(segment.averages["temperature"]) is float


def test_a_trajectory_that_goes_on_is_left_as_it_was() -> None:
    from ase.calculators.lj import LennardJones

    first = sampled("")
    before = first.structure.positions.copy()
    psiflow.sample(LennardJones(sigma=0.8, epsilon=0.01), psiflow.sampler("faithless"), first, steps=2)
    np.testing.assert_array_equal(first.structure.positions, before)


# Campaigns -------------------------------------------------------------------------------------------------

PHYSICS = "give more bootstrap structures"


def asked(mended: Path, kind: str, **how: str) -> psiflow.OnlineLearning:
    made = {"potential": psiflow.potential, "sampler": psiflow.sampler, "reference": psiflow.reference}[kind]
    return learning(labels=6, **{kind: made("faithless", mended=str(mended), **how)})


@pytest.mark.parametrize(
    ("kind", "how", "said"),
    [
        ("reference", {"how": "forces across"}, "returned forces of shape (3, 1); the contract asks for (1, 3)"),
        ("potential", {"trains": "an error that is no number"}, "returned errors in which 'force_mae' is nan"),
        ("potential", {"predicts": "forces across"}, "returned forces of shape (3, 2); the contract asks for (3, 3)"),
        ("potential", {"trains": "without a seed"}, "whose 2 members say exactly the same of every structure"),
        ("sampler", {"how": "never asks"}, "called the monitor 0 times"),
        ("sampler", {"how": "never moves"}, "did not move the atoms in 10 steps"),
        ("sampler", {"how": "other atoms"}, "of other atoms: H2O became "),
        ("sampler", {"how": "nothing"}, "returned None where its contract asks for Segment"),
    ],
)
def test_a_campaign_ends_with_the_plugins_name_and_goes_on_once_it_is_mended(
    kind: str, how: dict[str, str], said: str, tmp_path: Path
) -> None:
    campaign = asked(tmp_path / "mended", kind, **how)
    with Context("threads") as context, pytest.raises(CampaignError) as end:
        run(tmp_path / "c", context, campaign)
    assert f"{kind} 'faithless' {TOYS} " in str(end.value)
    assert said in str(end.value)
    assert PHYSICS not in str(end.value)
    attempts = {failure.attempts for failure in read_campaign(tmp_path / "c").state.failures}
    assert attempts == {1}, "what would only repeat is not tried again"
    (tmp_path / "mended").touch()
    models._warm = models._Warm(8)  # as in a new process, which imports the plugin anew
    with Context("threads") as context:
        run(tmp_path / "c", context, campaign)
    assert read_campaign(tmp_path / "c").state.finished in ("labels", "converged", "stalled")


def test_an_exception_of_a_sampler_is_told_as_its_own_with_type_and_line(tmp_path: Path) -> None:
    campaign = asked(tmp_path / "mended", "sampler", how="raises")
    with Context("threads") as context, pytest.raises(CampaignError) as end:
        run(tmp_path / "c", context, campaign)
    assert f"sampler 'faithless' {TOYS} raised ValueError: a sampler of no luck (" in str(end.value)
    assert "faithless.py:" in str(end.value)
    assert PHYSICS not in str(end.value)


MALFORMED: dict[str, list[Any]] = {
    "label": [{}, None],
    "train": [{"model": "m"}, {"model": {"path": "p", "digest": "d"}, "steps": 1, "errors": {"force_rmse": None}}],
    "sample": [{"walkers": []}, {"walkers": [{"walker": 0, "steps": "five"}] * 3}],
    "score": [{"deviations": []}, {"deviations": ["high"]}],
    "evaluate": [{"file": 1, "digest": "d"}, {"file": "missing.json"}],
}


def _saying_first(said: dict[str, list[Any]]) -> Callable[[str, str, str], str]:
    """A worker that says these of its tasks, and leaves them in their folders, before it says what it should."""
    left = {kind: list(values) for kind, values in said.items()}

    def saying(kind: str, request: str, grant: str) -> str:
        if not left.get(kind):
            return carry_out(kind, request, grant)
        outcome: Plain = {"value": left[kind].pop(0), "seconds": 0.1, "worker": "here:1"}
        write_sealed(Path(json.loads(request)["folder"]) / RESULT, outcome)
        return json.dumps(outcome)

    return saying


def test_what_a_worker_says_that_cannot_be_read_is_a_failure_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "carry_out", _saying_first(MALFORMED))
    slow = psiflow.executor("threads", workers=1)  # labels wait, so that newer models look at them
    with Context("threads", label=slow) as context:
        run(tmp_path / "c", context, learning(14, walkers=4, reference=psiflow.reference("toy", delay=0.1)))
    state = read_campaign(tmp_path / "c").state
    assert state.finished == "labels"
    assert {failure.kind for failure in state.failures} == MALFORMED.keys()
    assert all("is invalid" in failure.message for failure in state.failures)


def test_a_candidate_whose_prediction_cannot_be_read_is_labelled_all_the_same(tmp_path: Path) -> None:
    """What a plugin said in forces of shape (3, N) ended the driver, and every driver after it."""
    campaign = learning(labels=8)
    with Context("threads") as context:
        run(tmp_path / "c", context, campaign)
    done = read_campaign(tmp_path / "c")
    outcomes = _outcomes(tmp_path / "c")
    candidate = done.state.of("walker")[0]
    file = done.store.structures / candidate.structure[:2] / f"{candidate.structure}.json"
    record = read_sealed(file)
    record["prediction"]["forces"] = [[0.0] * 3] * 2
    write_sealed(file, record)
    proposal = outcomes.taken_back(done.store.absolute(candidate.file or ""))
    assert proposal.origin == "walker", "the prediction is read, as far as that goes"
    assert proposal.error is None
    assert not proposal.discarded


def _outcomes(folder: Path) -> Outcomes:
    campaign, asked, store = read_campaign(folder), learning(labels=8), Store(folder)
    orders = Orders(asked.potentials, asked.sampler, asked.reference, campaign.settings, store, campaigns.water())
    return Outcomes(orders, campaign.settings, store, asked.potentials)
