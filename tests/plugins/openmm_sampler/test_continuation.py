"""A walker goes on as if its segment had not ended: to the last bit, in any process, beside any other."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from psiflow_openmm_sampler.sampler import OpenMM

from psiflow_core.components import SamplingTask, Walker
from psiflow_core.structures import from_plain, to_plain

BATH = {"temperature": 80.0, "timestep": 4.0}
PRESS = {**BATH, "ensemble": "npt", "pressure": 50.0, "barostat_frequency": 7}
SAMPLERS = {
    "nve": OpenMM(**BATH, ensemble="nve"),
    "langevin": OpenMM(**BATH),
    "nose-hoover": OpenMM(**BATH, thermostat="nose-hoover"),
    "isotropic": OpenMM(**PRESS),
    "anisotropic": OpenMM(**PRESS, barostat="anisotropic", thermostat="nose-hoover"),
    "flexible": OpenMM(**PRESS, barostat="flexible"),
}


def same(one: Atoms, other: Atoms) -> bool:
    """To the last bit."""
    return bool(
        np.array_equal(one.positions, other.positions)
        and np.array_equal(one.get_momenta(), other.get_momenta())
        and np.array_equal(one.cell, other.cell)
    )


def posted(walker: Walker) -> Walker:
    """The walker after a journey as plain data."""
    structure = from_plain(json.loads(json.dumps(to_plain(walker.structure))))
    return Walker(structure, walker.state, walker.step)


@pytest.mark.parametrize("name", SAMPLERS)
def test_two_segments_are_one(name, crystal, argon, move):
    """Also where the barostat's steps do not divide the segment, and checks and frames fall elsewhere."""
    whole = move(SAMPLERS[name], crystal, argon, 100)
    first = move(SAMPLERS[name], crystal, argon, 37, check_every=5, stride=3)
    second = move(SAMPLERS[name], posted(first.walker), argon, 63, seed=99)
    assert second.walker.step == whole.walker.step == 100
    assert same(second.walker.structure, whole.walker.structure)
    assert second.walker.state == whole.walker.state


@pytest.mark.parametrize("name", ["nve", "langevin", "nose-hoover", "isotropic", "flexible"])
def test_another_process_goes_on_exactly(name, move, tmp_path):
    start = bulk("Ar", cubic=True, a=5.4)
    start.rattle(0.05, seed=1)
    calculator = LennardJones(sigma=3.4, epsilon=0.0103, rc=6.0)
    whole = move(SAMPLERS[name], start, calculator, 40)
    first = move(SAMPLERS[name], start, calculator, 20)
    assert first.walker.state is not None
    job = {
        "options": SAMPLERS[name].options(),
        "structure": to_plain(first.walker.structure),
        "state": first.walker.state.hex(),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("go_on.py")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    assert same(from_plain(json.loads((tmp_path / "end.json").read_text())), whole.walker.structure)


def test_walkers_in_threads_move_as_they_do_alone(crystal, argon):
    def trajectory(name: str) -> Atoms:
        task = SamplingTask(60, seed=list(SAMPLERS).index(name))
        return SAMPLERS[name].sample(Walker(crystal), type(argon)(), task, lambda *_: None).walker.structure

    alone = [trajectory(name) for name in SAMPLERS]
    with ThreadPoolExecutor(len(SAMPLERS)) as threads:
        together = list(threads.map(trajectory, SAMPLERS))
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("change", ["temperature", "moved", "masses"])
def test_a_state_that_is_not_the_walkers_is_left_aside(change, crystal, argon, move):
    """The walker then starts from its structure and momenta, with random numbers from the segment's seed."""
    sampler = SAMPLERS["langevin"]
    walker = move(sampler, crystal, argon, 20).walker
    if change == "temperature":
        sampler = sampler.model_copy(update={"temperature": 90.0})
    elif change == "moved":
        walker.structure.positions[0] += 1e-3
    else:
        walker.structure.set_masses([20.0] * len(walker.structure))
    with_state = move(sampler, walker, argon, 20, seed=8)
    without = move(sampler, replace(walker, state=None), argon, 20, seed=8)
    assert same(with_state.walker.structure, without.walker.structure)


def test_a_new_temperature_keeps_positions_and_momenta(crystal, argon, move):
    """With a bath that does almost nothing, the first steps after a change are those of no change."""
    quiet = SAMPLERS["langevin"].model_copy(update={"friction": 1e-9})
    walker = move(quiet, crystal, argon, 20).walker
    undisturbed = move(quiet, walker, argon, 5).walker.structure
    warmer = move(quiet.model_copy(update={"temperature": 90.0}), walker, argon, 5).walker.structure
    np.testing.assert_allclose(warmer.positions, undisturbed.positions, atol=1e-4)
    np.testing.assert_allclose(warmer.get_momenta(), undisturbed.get_momenta(), atol=1e-2)
