"""What the sampler promises the core: checks, frames, errors, options."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from psiflow_openmm_sampler.sampler import OpenMM

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.errors import OptionError, StructureError, WalkerExploded
from psiflow_core.registry import plugins
from psiflow_core.testing import SamplerContract

NVT = OpenMM(temperature=80.0, timestep=4.0)
NPT = OpenMM(ensemble="npt", temperature=80.0, pressure=1.0, timestep=4.0, barostat_frequency=10)
MINIMISE = OpenMM(ensemble="minimise", tolerance=1e-6)
EVERY = pytest.mark.parametrize("sampler", [NVT, NPT, MINIMISE], ids=["nvt", "npt", "minimise"])


class TestNve(SamplerContract):
    component = OpenMM
    options = {"ensemble": "nve", "temperature": 300.0}  # noqa: RUF012


class TestLangevin(SamplerContract):
    component = OpenMM
    options = {"temperature": 300.0}  # noqa: RUF012


class TestNoseHoover(SamplerContract):
    component = OpenMM
    options = {"temperature": 300.0, "thermostat": "nose-hoover"}  # noqa: RUF012


class TestIsotropicNpt(SamplerContract):
    component = OpenMM
    options = {"ensemble": "npt", "temperature": 300.0, "pressure": 1.0, "barostat_frequency": 3}  # noqa: RUF012


class TestFlexibleNpt(TestIsotropicNpt):
    options = {**TestIsotropicNpt.options, "barostat": "flexible", "thermostat": "nose-hoover"}  # noqa: RUF012


class TestMinimisation(SamplerContract):
    component = OpenMM
    options = {"ensemble": "minimise", "tolerance": 1e-6}  # noqa: RUF012
    moves = False
    random = False
    expected_failures = {  # noqa: RUF012
        "test_two_segments_equal_one_of_twice_the_length": "each segment begins with a fresh L-BFGS",
        "test_two_segments_with_fixed_atoms_equal_one_of_twice_the_length": "each segment begins with a fresh L-BFGS",
        "test_a_bias_acts_alike_where_a_segment_is_cut": "hills that come while it goes down end the descent",
    }


class SickError(Exception):
    """One that carries more than a text."""

    def __init__(self, atoms: Atoms) -> None:
        super().__init__("sick")
        self.atoms = atoms


@EVERY
@pytest.mark.parametrize("error", [SickError(Atoms("H")), KeyboardInterrupt(), WalkerExploded("NaN")])
def test_what_the_forces_raise_leaves_as_it_came(sampler, error, crystal, argon, move):
    class Failing(type(argon)):
        def surface(self, atoms):
            if self.calls == 5:
                raise error
            return super().surface(atoms)

    with pytest.raises(type(error)) as caught:
        move(sampler, crystal, Failing(), 100)
    assert caught.value is error


@EVERY
def test_what_the_monitor_raises_leaves_as_it_came(sampler, crystal, argon, move):
    error = SickError(crystal)

    def monitor(step, atoms):
        raise error

    with pytest.raises(SickError) as caught:
        move(sampler, crystal, argon, 100, check_every=1, monitor=monitor)
    assert caught.value is error


def test_a_walker_whose_positions_are_lost_has_exploded(crystal, toy, move):
    class Infinite(toy):
        def surface(self, atoms):
            return 0.0, np.full((len(atoms), 3), np.inf)

    with pytest.raises(WalkerExploded, match="timestep"):
        move(NVT, crystal, Infinite(), 10)


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [(OpenMM(ensemble="nve", timestep=4.0), 101), (NVT, 101), (NPT, 101 + 10)],
    ids=["nve", "nvt", "npt"],
)
def test_each_step_asks_the_potential_once_and_each_trial_cell_once_more(sampler, calls, crystal, argon, move):
    """Checks and frames cost nothing; the one call more is for where the segment ends."""
    move(sampler, crystal, argon, 100, check_every=3, stride=7)
    assert argon.calls == calls


def test_the_monitor_stops_a_minimisation_too(cluster, argon, move):
    steps = []
    segment = move(
        MINIMISE,
        cluster,
        argon,
        50,
        check_every=2,
        monitor=lambda step, atoms: steps.append(step) or ("enough" if step >= 4 else None),
    )
    assert steps == [2, 4]
    assert (segment.steps, segment.stopped, segment.finished) == (4, "enough", False)


@EVERY
def test_frames_carry_the_energy_and_forces_of_their_positions(sampler, crystal, argon, move):
    frames = move(sampler, crystal, argon, 12, stride=4).frames
    assert len(frames) == 3
    for frame in frames:
        energy, forces = argon.surface(frame)
        assert frame.get_potential_energy() == energy
        assert np.array_equal(frame.get_forces(), forces)


def test_averages_are_those_of_the_checks(crystal, argon, move):
    segment = move(NPT, crystal, argon, 40, check_every=10, stride=10)
    potential = np.mean([frame.get_potential_energy() for frame in segment.frames])
    volume = np.mean([frame.get_volume() for frame in segment.frames])
    temperature = np.mean([frame.get_temperature() for frame in segment.frames])
    assert segment.averages == pytest.approx(
        {"potential_energy": potential, "volume": volume, "temperature": temperature}
    )


def test_charge_and_spin_reach_the_potential_and_stay_with_the_walker(crystal, argon, move):
    class Curious(type(argon)):
        def surface(self, atoms):
            assert (atoms.info["charge"], atoms.info["spin"]) == (1, 2)
            return super().surface(atoms)

    crystal.info.update(charge=1, spin=2)
    assert move(NVT, crystal, Curious(), 5).walker.structure.info == {"charge": 1, "spin": 2}


def test_nothing_stays_behind_after_a_segment(crystal, argon, move):
    """A circle of references through C++ would keep the calculator, and its model, for ever."""
    calculator = type(argon)()
    gone = weakref.ref(calculator)
    move(NPT, crystal, calculator, 20)
    del calculator
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ensemble": "nvt"}, "temperature"),
        ({"ensemble": "npt", "temperature": 300}, "needs a pressure"),
        ({"ensemble": "npt", "pressure": 1}, "needs a temperature"),
        ({"ensemble": "nve", "thermostat": "langevin"}, "no thermostat"),
        ({"ensemble": "nvt", "temperature": 300, "pressure": 1}, "keeps its cell"),
        ({"ensemble": "nvt", "temperature": 300, "barostat": "flexible"}, "keeps its cell"),
        ({"ensemble": "minimise", "temperature": 300}, "no temperature"),
        ({"temperature": -5}, "temperature=-5"),
        ({"temperature": 300, "timestep": 0}, "timestep=0"),
        ({"temperature": 300, "ensemble": "nph"}, "'npt'"),
        ({"temperature": 300, "barostat_frequency": 0}, "barostat_frequency=0"),
        ({"temprature": 300}, "Did you mean 'temperature'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        OpenMM.parse(options)


def test_the_sampler_is_found_by_name_and_survives_as_plain_data():
    spec = psiflow.sampler("openmm", ensemble="npt", temperature=300, pressure=1)
    assert plugins.build(Spec.from_plain(spec.to_plain())) == OpenMM(ensemble="npt", temperature=300, pressure=1)
    assert spec.distribution == "psiflow-openmm-sampler"


@pytest.mark.parametrize(
    ("sampler", "target"),
    [(NVT, 80.0), (NPT, 80.0), (OpenMM(ensemble="nve", temperature=80.0), None), (MINIMISE, None)],
)
def test_only_a_bath_has_a_target_temperature(sampler, target):
    assert sampler.target_temperature() == target


def test_a_structure_without_three_periods_has_no_pressure(cluster, crystal):
    NPT.check([crystal])
    with pytest.raises(StructureError, match=r"structure 1 .* use 'nvt'"):
        NPT.check([crystal, cluster])


def test_fixed_atoms_are_refused_where_the_cell_changes(crystal):
    crystal.set_constraint(FixAtoms([0]))
    NVT.check([crystal])
    MINIMISE.check([crystal])
    with pytest.raises(StructureError, match=r"fixed atoms, but ensemble='npt' changes the cell, .* use 'nvt'"):
        NPT.check([crystal])


def test_the_options_can_be_read_without_openmm():
    code = """
import sys
sys.modules["openmm"] = None
import psiflow_core as psiflow
from ase import Atoms
from psiflow_core.errors import EngineMissing
from psiflow_core.registry import plugins
sampler = plugins.build(psiflow.sampler("openmm", temperature=300))
try:
    sampler.check([Atoms("Ar")])
except EngineMissing as error:
    assert "pip install" in str(error)
else:
    raise SystemExit("the missing engine was not noticed")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
