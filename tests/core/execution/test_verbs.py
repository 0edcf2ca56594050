"""The verbs of a context: results by content, handles as dependencies, failures as data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from psiflow_toys.campaigns import moved_water
from psiflow_toys.waiting import PATIENCE, survivors, wait_until

import psiflow_core as psiflow
from psiflow_core.components import LabelTask, Reference, Spec
from psiflow_core.errors import (
    CampaignError,
    ContextLeft,
    OptionError,
    StructureError,
    TooManyFailures,
)
from psiflow_core.execution.failures import failure
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.perform import RESULT
from psiflow_core.execution.tasks.relax import RelaxationRequest
from psiflow_core.execution.tasks.request import Grant
from psiflow_core.execution.tasks.sample import Lost, Sampled, SamplingRequest, WalkerStart
from psiflow_core.execution.verbs.known import known
from psiflow_core.execution.verbs.places import MARK
from psiflow_core.files import write_sealed
from psiflow_core.labels.split import is_held_out
from psiflow_core.labels.store import read_label
from psiflow_core.processes import guard
from psiflow_core.processes.claims import claimed
from psiflow_core.registry.plugins import build
from psiflow_core.sampling import walk
from psiflow_core.structures import bare, digest, isolated_atom, label_of

TOY = psiflow.reference("toy")
EMT_BY_NAME = psiflow.reference("ase", calculator="emt")
POTENTIAL = psiflow.potential("toy", basis=8)
NVT = psiflow.sampler("ase", temperature=300.0)
WATER = molecule("H2O")
NEAR_MINIMUM = moved_water(1, seed=1)[0]
"""From here L-BFGS goes straight down the toy's energy, whatever the last bit of a force."""
HILLS = psiflow.Metadynamics(variables=(psiflow.Distance(atoms=(0, 1)),), height=0.01, sigma=(0.1,), every=10)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psiflow.Context]:
    with psiflow.Context(psiflow.executor("local", workers=2), folder=tmp_path_factory.mktemp("work")) as found:
        yield found


@pytest.fixture(scope="module")
def data(context: psiflow.Context) -> psiflow.Dataset:
    return context.label(moved_water(10, seed=1), TOY).result(PATIENCE)


@pytest.fixture(scope="module")
def model(context: psiflow.Context, data: psiflow.Dataset) -> psiflow.TrainedPotential:
    return context.train(POTENTIAL, data, members=2).result(PATIENCE)


def energy_by_toy(atoms: Atoms) -> float:
    built = build(TOY)
    assert isinstance(built, Reference)
    return built.label(atoms, LabelTask(Path())).energy


def counted(log: Path, delay: float = 0.0) -> Spec:
    parameters = {"log": str(log), "delay": delay}
    return psiflow.reference("ase", calculator="psiflow_toys.counted:Counted", parameters=parameters)


def computations(log: Path, what: str = "finished") -> Counter[str]:
    """How often each structure was computed."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return Counter(line["structure"] for line in lines if line["what"] == what)


# Labels ----------------------------------------------------------------------------------------------------


def test_labels_come_in_the_order_of_the_structures_with_their_reference(
    data: psiflow.Dataset, context: psiflow.Context
) -> None:
    waters = moved_water(10, seed=1)
    assert data.energies.tolist() == [energy_by_toy(atoms) for atoms in waters]
    assert all(one.reference == TOY for one in data.provenance)
    assert not data.failures


def test_an_isolated_atom_is_labelled_in_its_ground_state(context: psiflow.Context) -> None:
    (labelled,) = context.label(isolated_atom("O"), TOY).result(PATIENCE)
    assert labelled.info["spin"] == 3
    assert label_of(labelled).energy == energy_by_toy(isolated_atom("O"))


def test_failures_are_in_the_data_set_and_too_many_raise(context: psiflow.Context) -> None:
    failing = psiflow.reference("toy", fail_fraction=0.5)
    waters = moved_water(10, seed=2)
    data = context.label(waters, failing, tolerate=1.0).result(PATIENCE)
    failed = [failure.number for failure in data.failures]
    assert 0 < len(failed) < 10
    assert {failure.failure.reason for failure in data.failures} == {"unconverged"}
    assert len(data) == 10
    assert len(data.labelled) == 10 - len(failed)
    assert context.label(waters, failing, tolerate=len(failed)).result(PATIENCE).failures
    with pytest.raises(TooManyFailures, match=rf"{len(failed)} of 10 labels failed.*structure {failed[0]} .*toy fails"):
        context.label(waters, failing, tolerate=len(failed) - 1).result(PATIENCE)


def test_bad_input_is_refused_before_anything_starts(context: psiflow.Context) -> None:
    with pytest.raises(StructureError, match="structures structure 1"):
        context.label([WATER, Atoms("H2")], TOY)
    with pytest.raises(OptionError, match=r"psiflow.reference\(…\) makes a reference"):
        context.label(WATER, NVT)
    with pytest.raises(OptionError, match=r"tolerate=1\.5"):
        context.label(WATER, TOY, tolerate=1.5)
    with pytest.raises(OptionError, match="give cell=True"):
        context.relax(TOY, WATER, pressure=1.0)
    with pytest.raises(OptionError, match="cannot be sent to workers"):
        context.relax(EMT(), WATER)
    with pytest.raises(OptionError, match="members=0"):
        context.train(POTENTIAL, [], members=0)
    with pytest.raises(OptionError, match="walkers: there is none"):
        context.sample("model", NVT, [], steps=10)


def test_an_unsound_structure_that_was_computed_fails_by_itself(
    context: psiflow.Context, model: psiflow.TrainedPotential
) -> None:
    """Where a handle gave it nobody can mend it: the others are labelled."""
    runs = context.sample(model, NVT, moved_water(2, seed=19), steps=4, stride=4)
    good, bad = runs.result(PATIENCE)
    bad.frames[0].positions[1] = bad.frames[0].positions[0]
    data = context.label(runs, TOY, tolerate=1).result(PATIENCE)
    assert len(good.frames) == len(data.labelled) == 1
    (failed,) = data.failures
    assert failed.number == 1
    assert failed.failure.reason == "bad input"


def test_results_stream_as_they_come(context: psiflow.Context, tmp_path: Path) -> None:
    """A part of the result is there while another one is computed."""
    slow, quick = psiflow.reference("toy", delay=2.0), psiflow.reference("toy", delay=0.001)
    handles = [context.label(moved_water(1, seed=3), slow), context.label(moved_water(1, seed=3), quick)]
    assert list(psiflow.as_completed(handles)) == handles[::-1]
    parts = context.label(moved_water(6, seed=4), psiflow.reference("toy", delay=0.3))
    first = next(parts.as_completed())
    assert label_of(first).energy < 0
    assert not parts.done()
    assert len(list(parts.as_completed())) == 6


def test_equal_structures_share_one_label(context: psiflow.Context, tmp_path: Path) -> None:
    reference = counted(tmp_path / "log", delay=0.2)
    waters = moved_water(2, seed=5)
    handles = [context.label([*waters, *waters], reference), context.label(waters, reference)]
    assert [len(handle.result(PATIENCE)) for handle in handles] == [4, 2]
    assert sorted(computations(tmp_path / "log").values()) == [1, 1]


def test_a_shared_store_is_looked_at_first_and_takes_what_is_computed(tmp_path: Path) -> None:
    reference, waters = counted(tmp_path / "log"), moved_water(3, seed=6)
    for name, number in (("one", 2), ("two", 3)):
        with psiflow.Context("threads", folder=tmp_path / name, labels=tmp_path / "store") as context:
            assert len(context.label(waters[:number], reference).result(PATIENCE).labelled) == number
    assert sorted(computations(tmp_path / "log").values()) == [1, 1, 1]
    assert not list((tmp_path / "two").glob("labels/**/*.json"))


# Dependencies ----------------------------------------------------------------------------------------------


def test_handles_are_dependencies_and_data_sets_add_up(context: psiflow.Context) -> None:
    data = context.label(moved_water(8, seed=7), TOY)
    model = context.train(POTENTIAL, data, members=2)
    runs = context.sample(model, NVT, moved_water(3, seed=8), steps=20, stride=10)
    data += context.label(runs, TOY)
    model = context.train(POTENTIAL, data, parent=model)
    relaxed = context.relax(model, runs, fmax=0.05)
    evaluation = context.evaluate(model, {"first": data, "relaxed": context.label(relaxed, TOY)})
    assert evaluation.result(PATIENCE)["relaxed"].structures == len(relaxed.result(PATIENCE))
    assert len(data.result()) == 8 + sum(len(run.frames) for run in runs.result())
    assert len(model.result().members) == 2


def test_what_does_not_depend_on_each_other_runs_at_once(context: psiflow.Context, tmp_path: Path) -> None:
    """Two chains of a label and a training: the second chain's label is there before the first chain's training."""
    log = tmp_path / "log"
    chains = [context.label(moved_water(2, seed), counted(log, delay=0.5)) for seed in (9, 10)]
    started = [context.train(POTENTIAL, chain, members=1, atomic_energies={"H": -1.0, "O": -8.0}) for chain in chains]
    assert all(handle.result(PATIENCE) for handle in started)
    begun = [json.loads(line)["what"] for line in log.read_text().splitlines()]
    assert begun[:2] == ["begun", "begun"], "two workers, two labels at once"


def test_the_error_of_a_dependency_is_that_of_what_depends_on_it(context: psiflow.Context) -> None:
    failing = context.label(moved_water(2, seed=11), psiflow.reference("toy", fail_fraction=1.0))
    model = context.train(POTENTIAL, failing)
    evaluation = context.evaluate(model, failing)
    with pytest.raises(TooManyFailures):
        evaluation.result(PATIENCE)
    assert isinstance(model.exception(PATIENCE), TooManyFailures)


# Trainings -------------------------------------------------------------------------------------------------


def test_members_differ_and_the_same_training_is_found_again(
    context: psiflow.Context, data: psiflow.Dataset, model: psiflow.TrainedPotential
) -> None:
    digests = [member.file.digest for member in model.members]
    assert len(set(digests)) == 2
    files = {file: file.stat().st_mtime_ns for file in (context._folder or Path()).glob("tasks/train-*/result.json")}
    again = context.train(POTENTIAL, data, members=2).result(PATIENCE)
    assert [member.file.digest for member in again.members] == digests
    assert {file: file.stat().st_mtime_ns for file in files} == files
    other = context.train(POTENTIAL, data, members=2, seed=1).result(PATIENCE)
    assert not {member.file.digest for member in other.members} & set(digests)


def test_free_atoms_are_labelled_by_the_datas_reference(
    context: psiflow.Context, model: psiflow.TrainedPotential
) -> None:
    for symbol in ("H", "O"):
        (said,) = model.predict([isolated_atom(symbol)])
        assert said.energy == pytest.approx(energy_by_toy(isolated_atom(symbol)))


def test_data_of_others_need_their_free_atoms(context: psiflow.Context, data: psiflow.Dataset) -> None:
    others = list(data)
    with pytest.raises(
        OptionError, match=r"reference of its labels is not known; give atomic_energies={'H': …, 'O': …}"
    ):
        context.train(POTENTIAL, others).result(PATIENCE)
    free = context.label([isolated_atom("H"), isolated_atom("O")], TOY).result(PATIENCE)
    with_atoms = context.train(POTENTIAL, [*others, *free], members=2).result(PATIENCE)
    told = context.train(POTENTIAL, others, members=2, atomic_energies={"H": -1.0, "O": -8.0}).result(PATIENCE)
    assert [one.file.digest for one in with_atoms.members] == [one.file.digest for one in told.members]


def test_other_labels_of_the_same_structures_are_another_training(context: psiflow.Context) -> None:
    waters, atoms = moved_water(4, seed=12), {"H": -1.0, "O": -8.0}
    deeper = psiflow.reference("toy", depth=1.5)
    models = [context.train(POTENTIAL, context.label(waters, one), members=1) for one in (TOY, deeper)]
    given = [list(context.label(waters, one).result(PATIENCE)) for one in (TOY, deeper)]
    models += [context.train(POTENTIAL, one, members=1, atomic_energies=atoms) for one in given]
    first, second, *again = [handle.result(PATIENCE).members[0].file.digest for handle in models]
    assert first != second
    assert again == [first, second]


def test_a_fraction_is_held_out_and_stays_so_as_data_grow() -> None:

    held_out = [number for number in range(100) if is_held_out(number, 0.1)]
    assert len(held_out) == 10
    assert not any(is_held_out(number, 0.0) for number in range(100))


def test_a_parent_of_another_potential_is_refused(
    context: psiflow.Context, data: psiflow.Dataset, model: psiflow.TrainedPotential
) -> None:
    with pytest.raises(OptionError, match="the same potential"):
        context.train(psiflow.potential("toy", basis=9), data, parent=model).result(PATIENCE)


def test_nothing_to_train_on_is_one_error(context: psiflow.Context) -> None:
    failed = context.label(WATER, psiflow.reference("toy", fail_fraction=1.0), tolerate=1.0)
    with pytest.raises(OptionError, match="none of its 1 structures has a label"):
        context.train(POTENTIAL, failed).result(PATIENCE)


# Trajectories ----------------------------------------------------------------------------------------------


def test_a_trajectory_is_that_of_the_same_call_in_this_process(
    context: psiflow.Context, model: psiflow.TrainedPotential
) -> None:
    first = psiflow.TrainedPotential(model.members[:1])
    (there,) = context.sample(first, NVT, WATER, steps=20, stride=5).result(PATIENCE)
    (here,) = psiflow.sample(first, NVT, WATER, steps=20, stride=5)
    assert np.array_equal(there.structure.positions, here.structure.positions)
    assert there.walker.state == here.walker.state
    assert len(there.frames) == len(here.frames) == 4


@pytest.mark.parametrize("bias", [(), HILLS], ids=["without bias", "with hills"])
def test_a_trajectory_goes_on_as_if_it_had_not_ended(
    bias: Any, context: psiflow.Context, model: psiflow.TrainedPotential
) -> None:
    whole = context.sample(model, NVT, WATER, steps=40, bias=bias)
    half = context.sample(model, NVT, WATER, steps=20, bias=bias)
    (gone_on,), (at_once,) = (handle.result(PATIENCE) for handle in (context.sample(model, NVT, half, steps=20), whole))
    assert gone_on.walker.step == at_once.walker.step == 40
    assert np.array_equal(gone_on.structure.positions, at_once.structure.positions)


def test_a_walkers_result_is_found_in_whatever_group_it_was_sampled(
    context: psiflow.Context, model: psiflow.TrainedPotential
) -> None:
    walkers = moved_water(5, seed=13)
    runs = context.sample(model, NVT, walkers, steps=10).result(PATIENCE)
    folders = {file.parent for file in (context._folder or Path()).glob("tasks/sample-*/attempt-*")}
    again = context.sample(model, NVT, walkers[:3], steps=10).result(PATIENCE)
    for one, other in zip(runs, again, strict=False):
        assert np.array_equal(one.structure.positions, other.structure.positions)
        assert one.most_uncertain is not None
        assert other.most_uncertain is not None
        assert one.most_uncertain.deviation == other.most_uncertain.deviation > 0
    assert {file.parent for file in (context._folder or Path()).glob("tasks/sample-*/attempt-*")} == folders


class Ends:
    """The end of a block that comes at the third look."""

    def __init__(self) -> None:
        self._looks = 0

    def __call__(self) -> bool:
        self._looks += 1
        return self._looks == 3


@pytest.mark.parametrize("bias", [(), HILLS], ids=["without bias", "with hills"])
def test_a_trajectory_that_outlasts_its_block_goes_on_in_the_next(
    bias: Any, model: psiflow.TrainedPotential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walkers, asked = moved_water(3, seed=5), {"steps": 40, "stride": 10, "check_every": 5, "bias": bias}
    with psiflow.Context("threads", folder=tmp_path / "whole") as context:
        whole = context.sample(model, NVT, walkers, **asked).result(PATIENCE)
    monkeypatch.setattr(walk, "Pace", Ends)
    for _ in range(2):
        with psiflow.Context("threads", folder=tmp_path / "cut") as context:
            cut = context.sample(model, NVT, walkers, **asked)
            assert len(list(cut.as_completed())) == 3
        for one, other in zip(whole, cut.result(PATIENCE), strict=True):
            assert other.segment.steps == other.walker.step == 40
            assert np.array_equal(one.structure.positions, other.structure.positions)
            assert [digest(frame) for frame in one.frames] == [digest(frame) for frame in other.frames]
            assert other.segment.averages == pytest.approx(one.segment.averages)
            assert one.most_uncertain is not None
            assert other.most_uncertain is not None
            assert other.most_uncertain.step == one.most_uncertain.step
        attempts = list((tmp_path / "cut").glob("tasks/sample-*/attempt-*"))
        assert len(attempts) == 3, "legs of 15, 15 and 10 steps, each computed once"


def test_a_walker_that_is_stopped_says_why(context: psiflow.Context, model: psiflow.TrainedPotential) -> None:
    limits = psiflow.Limits(deviation=1e-9)
    (run,) = context.sample(model, NVT, WATER, steps=20, limits=limits).result(PATIENCE)
    assert run.segment.stopped == "uncertain"


# Relaxations -----------------------------------------------------------------------------------------------


def test_a_reference_relaxes_and_every_step_is_a_label_in_the_store(context: psiflow.Context, tmp_path: Path) -> None:
    reference = counted(tmp_path / "log")
    (relaxed,) = context.relax(reference, NEAR_MINIMUM, fmax=0.01).result(PATIENCE)
    assert relaxed.converged
    assert np.linalg.norm(relaxed.forces, axis=1).max() < 0.01
    paid = computations(tmp_path / "log")
    assert set(paid.values()) == {1}
    (labelled,) = context.label(relaxed.structure, reference).result(PATIENCE)
    assert label_of(labelled).energy == relaxed.energy
    assert computations(tmp_path / "log") == paid, "the last step is a label already"


def test_a_relaxation_by_a_reference_finds_the_steps_of_one_that_was_killed(tmp_path: Path) -> None:
    """As it is after a kill: the labels of the first steps are there, and nothing else."""
    reference = counted(tmp_path / "log")
    for name, steps, converged in (("killed", 3, False), ("again", 500, True)):
        with psiflow.Context("threads", folder=tmp_path / name, labels=tmp_path / "labels") as context:
            (relaxed,) = context.relax(reference, NEAR_MINIMUM, steps=steps).result(PATIENCE)
        assert relaxed.converged is converged
    assert len(computations(tmp_path / "log")) > 4
    assert set(computations(tmp_path / "log").values()) == {1}


def test_a_crystal_under_pressure_has_the_edge_of_its_equation_of_state(context: psiflow.Context) -> None:
    """EMT copper: −dE/dV by central differences is the pressure at the volume that `relax` came to."""
    start = bulk("Cu", cubic=True, a=3.7)
    pressures = (0.0, 50_000.0)
    handles = [context.relax(EMT_BY_NAME, start, cell=True, pressure=one, fmax=1e-4) for one in pressures]
    for pressure, handle in zip(pressures, handles, strict=True):
        (relaxed,) = handle.result(PATIENCE)
        volume = relaxed.structure.get_volume()
        energies = []
        for factor in (1 - 1e-3, 1 + 1e-3):
            cube = bulk("Cu", cubic=True, a=float((factor * volume) ** (1 / 3)))
            cube.calc = EMT()
            energies.append(cube.get_potential_energy())
        slope = -(energies[1] - energies[0]) / (2e-3 * volume)
        assert slope / units.bar == pytest.approx(pressure, abs=300.0)
        assert relaxed.stress is not None
        assert relaxed.stress[:3] / units.bar == pytest.approx(-pressure, abs=30.0)


def test_a_potential_relaxes_to_its_own_minimum_and_keeps_fixed_atoms(context: psiflow.Context) -> None:
    def hydrogen(length: float) -> Atoms:
        return Atoms("H2", [[0.0, 0.0, 0.0], [0.0, 0.0, length]])

    data = context.label([hydrogen(length) for length in np.linspace(0.45, 1.0, 12)], TOY)
    model = context.train(psiflow.potential("toy", ridge=1e-6), data, members=2)
    held = hydrogen(0.74)
    held.set_constraint(FixAtoms([0]))
    for start in (hydrogen(0.74), held):
        (relaxed,) = context.relax(model, start, fmax=0.01).result(PATIENCE)
        assert relaxed.converged
        (said,) = model.result().predict([relaxed.structure])
        assert said.energy == pytest.approx(relaxed.energy)
        assert np.linalg.norm(said.forces, axis=1).max() < 0.01
        assert relaxed.structure.get_distance(0, 1) == pytest.approx(2 * covalent_radii[1], abs=0.05)
        assert np.array_equal(relaxed.structure.positions[0], start.positions[0]) == bool(start.constraints)


def test_a_relaxation_that_has_not_converged_says_so(context: psiflow.Context) -> None:
    far = WATER.copy()
    far.positions *= 1.3
    (relaxed,) = context.relax(TOY, far, steps=1, fmax=1e-6).result(PATIENCE)
    assert not relaxed.converged
    assert relaxed.steps == 1


def test_a_calculator_by_name_relaxes(context: psiflow.Context) -> None:
    by_bias = context.relax(psiflow.AseCalculator(calculator="emt"), bulk("Cu", cubic=True), cell=True)
    by_reference = context.relax(EMT_BY_NAME, bulk("Cu", cubic=True), cell=True)
    assert by_bias.result(PATIENCE)[0].energy == by_reference.result(PATIENCE)[0].energy


# Errors ----------------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_predictions_by_set(
    context: psiflow.Context, data: psiflow.Dataset, model: psiflow.TrainedPotential
) -> None:
    other = context.label(moved_water(4, seed=14, amplitude=0.3), TOY).result(PATIENCE)
    evaluation = context.evaluate(model, {"near": data, "far": other}).result(PATIENCE)
    for name, some in (("near", data), ("far", other), ("all", [*data, *other])):
        structures = list(some)
        said = model.predict(structures)
        labels = [label_of(atoms) for atoms in structures]
        off = np.concatenate([(one.forces - label.forces).ravel() for one, label in zip(said, labels, strict=True)])
        assert evaluation[name].force_rmse == pytest.approx(float(np.sqrt(np.mean(off**2))))
        assert evaluation[name].structures == len(structures)
    assert evaluation["far"].force_rmse > evaluation["near"].force_rmse
    assert f"{1000 * evaluation['far'].force_rmse:.2f}" in str(evaluation)


# The folder, and how it ends -------------------------------------------------------------------------------


def test_a_context_without_a_folder_has_no_verbs() -> None:
    with psiflow.Context("threads") as context, pytest.raises(OptionError, match=r"Context\(folder=…\)"):
        context.label(WATER, TOY)


def test_a_folder_serves_one_process_at_a_time(tmp_path: Path) -> None:
    with psiflow.Context("threads", folder=tmp_path) as one, psiflow.Context("threads", folder=tmp_path) as two:
        one.label(WATER, TOY).result(PATIENCE)
        with pytest.raises(CampaignError, match="is used by process"):
            two.label(WATER, TOY)
    with psiflow.Context("threads", folder=tmp_path) as three:
        assert three.label(WATER, TOY).result(PATIENCE).labelled


def test_a_campaigns_folder_and_a_contexts_are_not_the_same(tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "journal.sqlite").touch()
    context = psiflow.Context("threads", folder=tmp_path / "campaign")
    with context, pytest.raises(CampaignError, match="is the folder of a campaign"):
        context.label(WATER, TOY)
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / MARK).touch()
    from psiflow_toys.campaigns import run

    with pytest.raises(CampaignError, match="is the folder of a context"):
        run(tmp_path / "context", None)


def test_leaving_gives_up_what_is_under_way_and_ends_every_process(tmp_path: Path) -> None:
    with psiflow.Context(psiflow.executor("local", workers=2), folder=tmp_path) as context:
        quick = context.label(WATER, TOY)
        assert quick.result(PATIENCE)
        slow = context.label(moved_water(2, seed=15), psiflow.reference("toy", delay=600))
        wait_until(lambda: len(list(tmp_path.glob("tasks/label-*"))) == 3)
        started = [process for pool in context._pools.started.values() for process in guard.guarding(pool.folder)]
    assert not survivors(started)
    with pytest.raises(ContextLeft, match="run the same again"):
        slow.result()
    assert quick.result()


def test_ctrl_c_ends_a_wait_at_once(tmp_path: Path) -> None:
    with psiflow.Context("threads", folder=tmp_path) as context:
        handle = context.label(WATER, psiflow.reference("toy", delay=3.0))
        timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            handle.result()
        assert not handle.done()


def test_a_lost_worker_is_replaced_and_its_task_repeated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with psiflow.Context(psiflow.executor("local", workers=1), folder=tmp_path / "work") as context:
        handle = context.label(WATER, counted(log, delay=2.0))
        wait_until(lambda: computations(log, "begun"))
        psutil.Process(json.loads(log.read_text().splitlines()[0])["pid"]).kill()
        assert handle.result(PATIENCE).labelled
    assert sum(computations(log, "begun").values()) == 2
    lines = (tmp_path / "work" / "psiflow.log").read_text().splitlines()
    assert sum("WARNING started again label-" in line for line in lines) == 1, "the loss is not silent"


def test_a_client_that_leaves_ends_no_verb(tmp_path: Path) -> None:
    """A campaign that is stopped gives its tasks up; verbs of the same context go on, with new workers."""
    with psiflow.Context("threads", folder=tmp_path / "work") as context:
        first = context.label(WATER, TOY).result(PATIENCE)
        desk = context.desk()
        desk.submit("given up", IdleRequest())
        desk.abandon()
        assert first.labelled
        assert context.label(moved_water(2, seed=20), TOY).result(PATIENCE).labelled


def test_a_campaign_runs_in_a_context_while_verbs_do(tmp_path: Path) -> None:
    from psiflow_toys.campaigns import run

    with psiflow.Context("threads", folder=tmp_path / "work") as context:
        handles = [context.label(moved_water(3, seed), psiflow.reference("toy", delay=0.2)) for seed in (16, 17)]
        result = run(tmp_path / "campaign", context)
        assert len(result.dataset) == 12
        assert all(len(handle.result(PATIENCE).labelled) == 3 for handle in handles)


SCRIPT = """
import sys
import psiflow_core as psiflow
from psiflow_toys.campaigns import moved_water

folder, log = sys.argv[1:]
if __name__ == "__main__":
    parameters = {"log": log, "delay": 0.2}
    reference = psiflow.reference("ase", calculator="psiflow_toys.counted:Counted", parameters=parameters)
    with psiflow.Context(psiflow.executor("local", workers=2), folder=folder) as context:
        data = context.label(moved_water(6, seed=18), reference)
        toy, free = psiflow.potential("toy"), {"H": -1, "O": -8}
        for turn in range(2):
            model = context.train(toy, data, members=2, atomic_energies=free)
            runs = context.sample(model, psiflow.sampler("ase"), moved_water(2, seed=turn), steps=10, stride=10)
            data += context.label(context.relax(model, runs, steps=5), reference)
        print("ended", len(data.result()), *(member.file.digest for member in model.result().members), flush=True)
"""


def begun(log: Path) -> list[str]:
    """The structures whose computation has begun, in that order."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line["structure"] for line in lines if line["what"] == "begun"]


def kill(process: subprocess.Popen[str], log: Path, computations: int) -> None:
    """Kill a process a moment after so many computations have begun."""
    wait_until(lambda: process.poll() is not None or len(begun(log)) >= computations)
    time.sleep(np.random.default_rng().uniform(0.0, 0.5))
    process.kill()


def test_a_script_that_is_killed_again_and_again_pays_for_no_label_twice(tmp_path: Path) -> None:
    """A label that is in the store is never computed again, and the end is that of a script that nobody kills."""
    script, log, work = tmp_path / "script.py", tmp_path / "log", tmp_path / "work"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), str(work), str(log)]
    for further in (2, 3, None):  # computations until it is killed
        paid, before = {digest(read_label(file)[0]) for file in work.glob("labels/*/*.json")}, len(begun(log))
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        if further is not None:
            kill(process, log, before + further)
        said = process.communicate(timeout=PATIENCE)[0]
        assert not paid & set(begun(log)[before:])
    words = [sys.executable, str(script), str(tmp_path / "undisturbed"), str(tmp_path / "undisturbed-log")]
    undisturbed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    assert said == undisturbed.stdout
    assert said.startswith("ended 10 ")


# What a machine has lost -----------------------------------------------------------------------------------


def test_a_walker_that_the_machine_has_lost_is_moved_again(
    context: psiflow.Context, model: psiflow.TrainedPotential, tmp_path: Path
) -> None:
    """Out of memory is no property of a walker, and neither is a full disk: their results are not kept."""
    request = _sampling(context, model, tmp_path)
    for reason, stays in (("memory", False), ("disk", False), ("error", True)):
        lost = Lost(walker=0, failure=failure(MemoryError("no room"), reason=reason))
        share = {"value": Sampled(walkers=[lost]).to_plain(), "seconds": 1.0, "worker": "here"}
        request.own_folder.mkdir(parents=True, exist_ok=True)
        write_sealed(request.own_folder / RESULT, share)
        assert (known(request) is not None) is stays, reason


@pytest.mark.parametrize("damage", ["gone", "half"])
def test_frames_that_a_disk_has_lost_are_made_again(
    context: psiflow.Context, model: psiflow.TrainedPotential, damage: str
) -> None:
    def sampled() -> list[Atoms]:
        seed = 70 if damage == "gone" else 71
        (run,) = context.sample(model, NVT, WATER, steps=20, stride=5, seed=seed).result(PATIENCE)
        return list(run.frames)

    folder = next(iter(context._verbs().places.tasks.parents))
    before, frames = set(folder.rglob("walker-*.xyz")), sampled()
    (file,) = set(folder.rglob("walker-*.xyz")) - before
    file.unlink() if damage == "gone" else file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = sampled()
    assert len(again) == len(frames) == 4
    np.testing.assert_allclose(again[-1].positions, frames[-1].positions, atol=1e-6)


def test_a_label_and_a_relaxation_that_begin_alike_compute_the_first_structure_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with psiflow.Context(psiflow.executor("local", workers=2), folder=tmp_path / "work") as context:
        reference = counted(log, delay=2.0)
        labelled, relaxed = context.label(WATER, reference), context.relax(reference, WATER, steps=1)
        assert labelled.result(PATIENCE).labelled
        assert len(relaxed.result(PATIENCE)) == 1
    assert set(computations(log).values()) == {1}


def test_no_worker_waits_for_a_label_that_another_process_computes(tmp_path: Path) -> None:
    """It would be ended as one that hangs: the relaxation ends, and its verb waits."""
    stores = {"labels": tmp_path / "labels", "own_labels": tmp_path / "labels"}
    request = RelaxationRequest(
        folder=tmp_path / "task",
        structure=WATER,
        optimiser=psiflow.sampler("ase", ensemble="optimise"),
        steps=1,
        reference=TOY,
        **stores,
    )
    first = LabelRequest(reference=TOY, structure=bare(WATER), **stores)
    with claimed(first.claim) as other:
        assert other is None
        waits = request.run(Grant())
        assert waits.computed_by is not None
        assert Path(waits.claim or "") == first.claim
    assert request.run(Grant()).computed_by is None


# Corners ---------------------------------------------------------------------------------------------------


def test_all_structures_are_in_the_set_of_all(context: psiflow.Context, data: psiflow.Dataset) -> None:
    model = context.train(POTENTIAL, data, members=1)
    tests = psiflow.Dataset(list(data[:2]), psiflow.Provenance(extra={"subset": "test"}))
    table = context.evaluate(model, tests + data[2:5]).result(PATIENCE)
    assert [(name, table[name].structures) for name in table] == [("test", 2), ("other", 3), ("all", 5)]
    with pytest.raises(OptionError, match="'all' is the set of all structures"):
        context.evaluate(model, {"all": data}).result(PATIENCE)


def test_a_single_structure_is_trained_on_and_free_atoms_alone_are_refused(
    context: psiflow.Context, data: psiflow.Dataset
) -> None:
    assert context.train(POTENTIAL, data[:1], members=1, validation=0.5).result(PATIENCE).members
    atoms = context.label([isolated_atom("O"), isolated_atom("H")], TOY)
    with pytest.raises(OptionError, match="all its structures are free atoms"):
        context.train(POTENTIAL, atoms, members=1).result(PATIENCE)


def test_a_handle_cannot_be_cancelled_under_those_that_depend_on_it(context: psiflow.Context) -> None:
    handle = context.label(moved_water(1, seed=90), TOY)
    assert not handle.future.cancel()
    assert (handle + handle).result(PATIENCE).labelled


def _sampling(context: psiflow.Context, model: psiflow.TrainedPotential, folder: Path) -> SamplingRequest:
    return SamplingRequest(
        folder=folder / "task",
        sampler=NVT,
        models=tuple(model.members),
        walkers=(WalkerStart(walker=0, seed=1, structure=WATER),),
        steps=5,
        check_every=5,
        limits=psiflow.Limits(),
        candidates=folder / "structures",
    )
