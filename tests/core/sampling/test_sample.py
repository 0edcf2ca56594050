"""Sampling outside campaigns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read

import psiflow_core as psiflow
from psiflow_core.components import CalculatorPredictor, Sum
from psiflow_core.errors import OptionError, PluginNotFound, StructureError, WalkerExploded
from psiflow_core.sampling.variables import values

BOND = psiflow.Distance(atoms=(0, 1))
NVT = psiflow.sampler("ase", ensemble="nvt", temperature=300.0, friction=20.0)


@pytest.fixture
def dimer() -> Atoms:
    return Atoms("Cu2", [[0.0, 0.0, 0.0], [2.3, 0.0, 0.0]])


def test_walkers_move_and_keep_frames() -> None:
    crystal = bulk("Cu", cubic=True)
    found = psiflow.sample(EMT(), NVT, [crystal, crystal], 20, stride=5)
    assert [len(one.frames) for one in found] == [4, 4]
    assert not np.array_equal(found[0].structure.positions, found[1].structure.positions)
    assert np.array_equal(crystal.positions, bulk("Cu", cubic=True).positions)
    frame = found[0].frames[-1]
    energy = frame.get_potential_energy()
    frame.calc = EMT()
    assert energy == pytest.approx(frame.get_potential_energy())


def test_equal_seeds_give_equal_trajectories(dimer: Atoms) -> None:
    ends = [psiflow.sample(EMT(), NVT, dimer, 20, seed=seed)[0].structure.positions for seed in (3, 3, 4)]
    assert np.array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


@pytest.mark.parametrize(
    "bias",
    [
        psiflow.Metadynamics(variables=[BOND], sigma=0.1, height=0.05, every=10),
        psiflow.MovingHarmonic(variable=BOND, stop=2.8, steps=60, stiffness=20.0),
    ],
    ids=lambda bias: bias.name,
)
def test_a_trajectory_goes_on_as_if_it_had_not_ended(bias: object, dimer: Atoms) -> None:
    whole = psiflow.sample(EMT(), NVT, dimer, 60, bias=bias)
    ended = psiflow.sample(EMT(), NVT, psiflow.sample(EMT(), NVT, dimer, 30, bias=bias)[0], 30)
    assert np.array_equal(ended[0].structure.positions, whole[0].structure.positions)
    assert ended[0].remembered[0].to_plain() == whole[0].remembered[0].to_plain()


def test_umbrella_sampling_spreads_walkers_over_a_variable(dimer: Atoms) -> None:
    umbrella = psiflow.Umbrella(variable=BOND, start=2.2, stop=2.8, stiffness=100.0)
    pulled = psiflow.sample(EMT(), NVT, [dimer] * 3, 400, bias=umbrella)
    held = psiflow.sample(EMT(), NVT, pulled, 400, stride=20)
    means = [values(one.frames, BOND).mean() for one in held]
    assert means == pytest.approx([2.2, 2.5, 2.8], abs=0.1)


def test_a_weighted_mixture_moves_walkers(dimer: Atoms) -> None:
    emt = CalculatorPredictor(EMT())
    ends = [
        psiflow.sample(potential, NVT, dimer, 20)[0].structure.positions
        for potential in (EMT(), Sum([emt, emt], weights=[0.3, 0.7]), Sum([emt, emt]))
    ]
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)
    assert np.abs(ends[0] - ends[2]).max() > 1e-3


def test_a_learned_potential_moves_walkers(learned: Path) -> None:
    potential, start = psiflow.TrainedPotential.load(learned / "potential"), read(learned / "dataset.xyz", 0)
    moved = psiflow.sample(potential, NVT, start, 10, stride=10)[0]
    assert moved.segment.stopped is None
    assert moved.frames[0].get_potential_energy() == pytest.approx(potential.predict([moved.structure])[0].energy)


def test_a_learned_potential_with_a_bias_moves_walkers_as_the_potential_under_the_bias(learned: Path) -> None:
    potential, start = psiflow.TrainedPotential.load(learned / "potential"), read(learned / "dataset.xyz", 0)
    wall = psiflow.UpperWall(variable=psiflow.Distance(atoms=(0, 1)), edge=0.5, stiffness=2.0)
    added = psiflow.sample(potential + wall, NVT, start, 20, check_every=5)[0]
    acting = psiflow.sample(potential, NVT, start, 20, bias=wall, check_every=5)[0]
    assert added.structure.positions == pytest.approx(acting.structure.positions, abs=1e-8)
    whole, part = (0.5 * potential + potential / 2).predict([start])[0], potential.predict([start])[0]
    assert whole.energy == pytest.approx(part.energy)
    assert whole.deviation == pytest.approx(part.deviation)
    nothing = (potential - potential).calculator().get_potential_energy(start)
    assert nothing == pytest.approx(0.0, abs=1e-9)


def test_the_monitor_says_why_a_walker_stopped(dimer: Atoms) -> None:
    near = Atoms("Cu2", [[0.0, 0.0, 0.0], [1.2, 0.0, 0.0]])
    stopped, ordinary = psiflow.sample(EMT(), NVT, [near, dimer], 20, limits=psiflow.Limits(deviation=1e6, lost=1e6))
    assert stopped.segment.stopped
    assert ordinary.segment.stopped is None


def test_forces_that_are_not_finite_are_an_error() -> None:
    class Broken(EMT):
        def calculate(self, *arguments: object, **words: object) -> None:
            super().calculate(*arguments, **words)
            self.results["forces"] = self.results["forces"] * np.nan

    with pytest.raises(WalkerExploded, match="not finite"):
        psiflow.sample(Broken(), NVT, bulk("Cu", cubic=True), 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"check_every": 0}, "check_every=0"),
        ({"stride": -1}, "stride=-1"),
        ({"start": []}, "there is no structure in it"),
        ({"start": "start.xyz"}, r"neither an ASE Atoms nor a Trajectory; read files with ase\.io\.read"),
        ({"sampler": "ase"}, r"sampler: 'ase' is none; make one with psiflow\.sampler"),
        ({"sampler": psiflow.sampler("ase", ensemble="npt", pressure=1.0)}, "periodic"),
        ({"potential": "mace"}, "'mace' is no energy function; give a trained potential"),
        ({"bias": {"name": "harmonik"}}, "harmonik"),
        ({"bias": psiflow.Harmonic(variable=psiflow.Volume(), center=1.0, stiffness=1.0)}, "volume"),
        (
            {"bias": psiflow.Incremental(variable=BOND, start=2.0, stop=3.0, steps=3, stiffness=1.0)},
            "'incremental' needs a campaign",
        ),
        (
            {
                "sampler": psiflow.sampler("ase", ensemble="nve"),
                "bias": psiflow.Metadynamics(variables=[BOND], sigma=0.1, height=0.05),
            },
            "bias_factor needs a sampler with a temperature",
        ),
    ],
)
def test_what_cannot_be_is_told(words: dict[str, object], said: str, dimer: Atoms) -> None:
    given = {"potential": EMT(), "sampler": NVT, "start": dimer, "steps": 5, **words}
    with pytest.raises((OptionError, PluginNotFound, StructureError), match=said):
        psiflow.sample(**given)
