"""PLUMED as a bias: against psiflow's own, carried by walkers, and missing.

What needs PLUMED's own library is skipped without it. The toy kernel in `tests/toys/plumed_kernel.c` takes its place
for what psiflow does: calls, units, signs and files; it says nothing of PLUMED.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from psiflow_toys import campaigns

import psiflow_core as psiflow
from psiflow_core.builtin.ase_sampler import AseSampler
from psiflow_core.cli import diagnosis
from psiflow_core.components import CalculatorPredictor, Memory, SamplingTask, Walker
from psiflow_core.environments.catalogue import one_of
from psiflow_core.errors import EngineMissing, OptionError
from psiflow_core.execution.context import Context
from psiflow_core.sampling.bias import WalkerBias
from psiflow_core.sampling.bias.plumed_input import actions, hills_files, lines_in
from psiflow_core.sampling.bias.plumed_kernel import KERNEL, find
from psiflow_core.sampling.monitor import Limits
from psiflow_core.sampling.variables import strained
from psiflow_core.sampling.walk import sample_together

STEP = 1e-5

BOND = psiflow.Distance(atoms=(0, 1))
SPRING = psiflow.Plumed(input="d: DISTANCE ATOMS=1,2\nRESTRAINT ARG=d AT=0.21 KAPPA=4000 LABEL=r")
IN_EV = psiflow.Plumed(
    input="UNITS LENGTH=A ENERGY=eV\nd: DISTANCE ATOMS=1,2\nMETAD ARG=d SIGMA=0.2 HEIGHT=0.02 PACE=7 BIASFACTOR=5"
)
OWN = psiflow.Metadynamics(variables=(BOND,), sigma=0.2, height=0.02, every=7, bias_factor=5)
LIMITS = Limits(deviation=1e3, lost=1e4, force=1e6, distance=1e-3, temperature_quantile=1e-300)


@pytest.fixture(params=["toy", "plumed"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which kernel answers."""
    if request.param == "toy":
        request.getfixturevalue("toy_plumed")
    else:
        try:
            find()
        except EngineMissing as error:
            pytest.skip(str(error))
    return str(request.param)


def crystal() -> Atoms:
    copper = bulk("Cu", cubic=True)
    copper.set_cell(copper.cell @ [[1.0, 0.1, 0.0], [0.2, 1.1, 0.0], [0.0, -0.1, 0.9]], scale_atoms=True)
    copper.rattle(0.3, seed=1)
    copper.positions[1] += copper.cell[1] - copper.cell[0]  # its nearest image is in another cell
    return copper


# Against psiflow's own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", [crystal(), molecule("H2O")], ids=["crystal", "molecule"])
def test_a_restraint_is_a_spring(kernel: str, structure: Atoms) -> None:
    """kJ/mol and nm against eV and Å; energy, forces and, of the crystal, stress."""
    stiffness = 4000 * (units.kJ / units.mol) / units.nm**2
    expected = psiflow.Harmonic(variable=BOND, center=2.1, stiffness=stiffness).evaluate(structure, Memory())
    found = SPRING.evaluate(structure, Memory())
    assert expected.energy > 0.01
    assert found.energy == pytest.approx(expected.energy, rel=1e-6)
    assert found.forces == pytest.approx(expected.forces, rel=1e-6, abs=1e-9)
    if expected.stress is None:
        assert found.stress is None
    else:
        assert found.stress == pytest.approx(expected.stress, rel=1e-6, abs=1e-9)


def test_a_line_units_is_heeded(kernel: str) -> None:
    given = "UNITS LENGTH=A ENERGY=eV\nd: DISTANCE ATOMS=1,2\nRESTRAINT ARG=d AT=2.1 KAPPA=3"
    expected = psiflow.Harmonic(variable=BOND, center=2.1, stiffness=3).evaluate(crystal(), Memory())
    found = psiflow.Plumed(input=given).evaluate(crystal(), Memory())
    assert found.energy == pytest.approx(expected.energy, rel=1e-6)
    assert found.forces == pytest.approx(expected.forces, rel=1e-6, abs=1e-9)


def with_hills(bias: Any, structure: Atoms) -> Memory:
    """After four checks, three of which put a hill."""
    memory = Memory(temperature=300.0)
    for number, step in enumerate((7, 14, 20, 21)):
        seen = structure.copy()
        seen.positions[1, 2] += 0.05 * number
        memory = bias.look(memory, seen, step, 300.0)
    return memory


def pushed(atoms: Atoms, axis: int, by: float) -> Atoms:
    end = atoms.copy()
    end.positions[1, axis] += by
    return end


def sheared(atoms: Atoms, row: int, column: int, by: float) -> Atoms:
    mode = np.zeros((3, 3))
    mode[row, column] += 0.5
    mode[column, row] += 0.5
    return strained(atoms, by * mode)


def test_forces_and_stress_are_derivatives_of_the_energy(kernel: str) -> None:
    atoms = crystal()
    for bias, memory in ((SPRING, Memory()), (IN_EV, with_hills(IN_EV, atoms))):
        answer = bias.evaluate(atoms, memory)
        assert answer.energy > 0.01

        def slope(change: Callable[..., Atoms], *along: int, bias: Any = bias, memory: Memory = memory) -> float:
            ahead, behind = (bias.evaluate(change(atoms, *along, by), memory).energy for by in (STEP, -STEP))
            return float((ahead - behind) / (2 * STEP))

        assert answer.forces[1] == pytest.approx([-slope(pushed, axis) for axis in range(3)], rel=1e-5, abs=1e-6)
        assert answer.forces.sum(axis=0) == pytest.approx([0, 0, 0], abs=1e-9)
        voigt = zip([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1], strict=True)
        stress = [slope(sheared, row, column) / atoms.get_volume() for row, column in voigt]
        assert answer.stress == pytest.approx(stress, rel=1e-5, abs=1e-7)


def test_hills_are_those_of_psiflow(kernel: str) -> None:
    """PLUMED lets a hill end where ½(Δs/σ)² = 6.25, which changes it by 0.2 % of its height; the toy does not."""
    structure = crystal()
    found, expected = with_hills(IN_EV, structure), with_hills(OWN, structure)
    rows = [line.split() for line in found.files["HILLS"].splitlines() if not line.startswith("#!")]
    assert len(rows) == len(expected.hills) == 3
    if kernel == "toy":
        assert [float(row[2]) for row in rows] == pytest.approx(expected.hills[:, 1], abs=2e-9)
    centers = [float(row[1]) for row in rows]
    assert centers == pytest.approx(expected.hills[:, 0], abs=2e-9)
    tolerance = 1e-8 if kernel == "toy" else 0.004 * 0.02 * 3
    for by in (0.0, 0.1, 0.2):
        at = structure.copy()
        at.positions[1, 0] += by
        answer, own = IN_EV.evaluate(at, found), OWN.evaluate(at, expected)
        assert own.energy > 0.02
        assert answer.energy == pytest.approx(own.energy, abs=tolerance)
        assert answer.forces == pytest.approx(own.forces, abs=10 * tolerance)


# What a walker takes along ---------------------------------------------------------------------------------


def test_the_answer_depends_on_structure_and_memory_alone(kernel: str) -> None:
    """Whatever was asked before, and in whichever process; to the last bit."""
    structure, memories = crystal(), [Memory(temperature=300.0)]
    for number in range(1, 6):
        structure.positions[1, 1] += 0.03
        memories.append(IN_EV.look(memories[-1], structure, 7 * number, 300.0))
    answers = [IN_EV.evaluate(structure, memory).energy for memory in memories]
    assert answers == sorted(answers)
    assert len(set(answers)) == 6
    anew = one_of("bias", json.loads(json.dumps(IN_EV.to_plain())))
    for memory, expected in reversed(list(zip(memories, answers, strict=True))):
        back = Memory.from_plain(json.loads(json.dumps(memory.to_plain())))
        assert anew.evaluate(structure, back).energy == expected


def test_before_a_check_there_was_a_hill_less(kernel: str) -> None:
    structure = crystal()
    first = IN_EV.look(Memory(temperature=300.0), structure, 7, 300.0)
    second = IN_EV.look(first, structure, 14, 300.0)
    none = IN_EV.look(second, structure, 15, 300.0)
    for memory, earlier in ((first, Memory()), (second, first), (none, second)):
        assert memory.before().files == earlier.files
        assert memory.before().step == earlier.step


@pytest.mark.parametrize(
    "options", [{"temperature": 500.0}, {"ensemble": "npt", "barostat": "flexible"}, {"ensemble": "npt"}]
)
def test_a_segment_that_is_cut_goes_on_under_the_very_same_bias(kernel: str, options: dict[str, Any]) -> None:
    sampler, potential = AseSampler(**options), CalculatorPredictor(EMT())

    def segment(walker: Walker, kept: Any, steps: int) -> tuple[Walker, Any]:
        biases = [one_of("bias", IN_EV.to_plain()), one_of("bias", SPRING.to_plain())]
        bias = WalkerBias(biases, walker, kept, sampler.target_temperature())
        task = SamplingTask(steps, seed=5, check_every=7)
        (visit,) = sample_together(sampler, [walker], [task], potential, potential, LIMITS, [bias])
        assert visit.segment, visit.error
        return visit.segment.walker, json.loads(json.dumps(bias.to_plain()))

    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=1)
    whole, memory = segment(Walker(copper), [], 42)
    walker, kept = Walker(copper), list[Any]()
    for _ in range(3):
        walker, kept = segment(walker, kept, 14)
    assert memory[0]["files"]["HILLS"].count("\n") >= 6
    assert kept == memory
    assert np.array_equal(walker.structure.positions, whole.structure.positions)
    assert np.array_equal(walker.structure.get_momenta(), whole.structure.get_momenta())


def test_nothing_is_left_behind(kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder at any time after a call, for a worker may be killed; no open file after the bias."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bias = psiflow.Plumed(input=IN_EV.input + "\nPRINT ARG=d FILE=COLVAR STRIDE=7")
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    bias.evaluate(crystal(), with_hills(bias, crystal()))
    with pytest.raises(OptionError, match="PLUMED does not take the input"):
        psiflow.Plumed(input="d: DISTANCE ATOMS=1,99").evaluate(crystal(), Memory())
    find()
    assert list(tmp_path.iterdir()) == []
    del bias
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files


# Campaigns -------------------------------------------------------------------------------------------------


@pytest.fixture
def threads(tmp_path: Path) -> Iterator[Context]:
    with Context(psiflow.executor("threads"), folder=tmp_path / "pools") as context:
        yield context


def learning(bias: psiflow.Plumed, **settings: Any) -> psiflow.OnlineLearning:
    walking = psiflow.Walking(
        segment=psiflow.Segments(steps=40, check_every=5),
        limits=psiflow.Limits(deviation=10.0, lost=500.0, force=1e4, distance=0.3),
        bias=[bias],
    )
    return campaigns.learning(14, **{"walking": walking, "schedule": "sequential", **settings})


METAD = "d: DISTANCE ATOMS=1,2\nMETAD ARG=d SIGMA=0.005 HEIGHT=0.1 PACE=5 BIASFACTOR=10"


def test_a_campaign_keeps_the_hills_with_its_walkers(toy_plumed: None, threads: Context, tmp_path: Path) -> None:
    result = campaigns.run(tmp_path / "c", threads, learning(psiflow.Plumed(input=METAD)))
    assert result.state.finished == "labels"
    walkers = [walker for walker in result.state.walkers if walker.file]
    assert walkers
    for walker in walkers:
        (memory,) = json.loads((result.folder / str(walker.file)).read_text())["bias"]
        assert memory["files"]["HILLS"].count("\n") >= memory["step"] // 5 > 0


def test_an_input_that_plumed_refuses_ends_the_campaign_before_anything_runs(
    toy_plumed: None, threads: Context, tmp_path: Path
) -> None:
    for given, says in (
        ("d: DISTANCE ATOMS=1,7\nRESTRAINT ARG=d AT=0 KAPPA=1", "does not take the input: atom out of range"),
        ("d: DISTANCE ATOMS=1,2\nRESTRIANT ARG=d AT=0 KAPPA=1", "does not take the input: I cannot understand line"),
    ):
        with pytest.raises(OptionError, match=says) as told:
            campaigns.run(tmp_path / "c", threads, learning(psiflow.Plumed(input=given)))
        assert "\n" not in str(told.value)
        assert not list((tmp_path / "c").rglob("label-*")), "nothing ran"


def test_hills_that_become_lower_need_a_temperature(kernel: str) -> None:
    with pytest.raises(OptionError, match="TEMP"):
        IN_EV.try_out([crystal()], None)
    IN_EV.try_out([crystal()], 300.0)


# Without PLUMED --------------------------------------------------------------------------------------------


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library, whatever this machine has; the Python package is there or not."""
    monkeypatch.setenv(KERNEL, "/nowhere/libplumedKernel.so")


def test_a_campaign_without_plumed_is_refused_in_one_line(without: None, threads: Context, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"PLUMED is missing here.*pip install plumed.*PLUMED_KERNEL") as told:
        campaigns.run(tmp_path / "c", threads, learning(SPRING))
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "c").rglob("label-*")), "nothing ran"


def test_without_its_python_package_plumed_is_missing(tmp_path: Path) -> None:
    """In an interpreter that cannot import it."""
    code = (
        "import sys; sys.modules['plumed'] = None\n"
        "import psiflow_core as psiflow\nfrom ase.build import molecule\n"
        "psiflow.Plumed(input='d: DISTANCE ATOMS=1,2').try_out([molecule('H2')], None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"OptionError: bias 'plumed': the Python package of PLUMED is missing here: pip install", last)


def test_the_doctor_tells_which_plumed_there_is(kernel: str) -> None:
    finding = diagnosis.plumed()
    assert finding.verdict == "good"
    assert finding.found.startswith(find().version)
    if os.environ.get(KERNEL):
        assert os.environ[KERNEL] in finding.found


def test_the_doctor_does_not_mind_that_there_is_none(without: None) -> None:
    finding = diagnosis.plumed()
    assert finding.verdict == "open"
    assert "pip install plumed" in finding.fix
    assert KERNEL in finding.fix


def test_the_doctor_tells_who_computes_variables() -> None:
    found = diagnosis.variables().found
    assert "with every sampler" in found
    assert "distance" in found


# Input -----------------------------------------------------------------------------------------------------


LONG = """
# a comment
UNITS LENGTH=A   # another
d: DISTANCE ATOMS=1,2
m: METAD ...
  ARG=d SIGMA=0.2
  HEIGHT=1 PACE=5 FILE=MINE
... METAD
METAD ARG=d SIGMA=0.1 HEIGHT=1 PACE=5
PRINT ARG=d FILE=COLVAR
PRINT ARG=m.bias
ext: EXTERNAL ARG=d FILE=/shared/table
ENDPLUMED
what follows is not read
"""


def test_an_input_is_read_as_plumed_reads_it() -> None:
    found = actions(LONG)
    assert len(found) == 7
    assert found[2] == ["m:", "METAD", "ARG=d", "SIGMA=0.2", "HEIGHT=1", "PACE=5", "FILE=MINE"]
    assert hills_files(psiflow.Plumed(input=LONG).input) == ["MINE", "HILLS"]


def test_what_is_written_goes_into_the_given_folder_and_what_is_read_stays() -> None:
    lines = list(lines_in(LONG, Path("/scratch")))
    assert lines[2].endswith(" FILE=/scratch/MINE")
    assert lines[3].endswith(" FILE=/scratch/HILLS")
    assert lines[4:] == [
        "PRINT ARG=d FILE=/scratch/COLVAR",
        "PRINT ARG=m.bias",
        "ext: EXTERNAL ARG=d FILE=/shared/table",
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "it has no lines"),
        ("# nothing\n", "it has no lines"),
        ("m: METAD ...\n ARG=d", "does not end"),
        ("RESTART", "psiflow restarts PLUMED by itself"),
        ("INCLUDE FILE=more.dat", "INCLUDE: write the lines of that file here"),
        ("e: ENERGY", "does not know the energy"),
        ("o: OPES_METAD ARG=d PACE=5 BARRIER=5", "OPES_METAD remembers what a walker cannot take along"),
        (
            "METAD ARG=d SIGMA=1 HEIGHT=1 PACE=5 FILE=/home/me/HILLS",
            "FILE=/home/me/HILLS of METAD: name the file without",
        ),
        ("METAD ARG=d SIGMA=1 HEIGHT=1 PACE=5 WALKERS_N=2", "WALKERS_N=2 of METAD cannot be honoured"),
        ("METAD ARG=d SIGMA=1 TAU=1 PACE=5", "TAU=1 of METAD cannot be honoured"),
        ("METAD ARG=d SIGMA=1 HEIGHT=1 PACE=5\nMETAD ARG=e SIGMA=1 HEIGHT=1 PACE=5", "two METAD have the file 'HILLS'"),
        ("RESTRAINT ARG=d AT=0 KAPPA=1 STRIDE=2", "STRIDE=2 of RESTRAINT: a bias acts at every step"),
        ("c: COORDINATION GROUPA=1 GROUPB=2 R_0=0.3 NLIST NL_STRIDE=10", "NLIST of COORDINATION: a neighbour list"),
        ("r: RMSD REFERENCE=here.pdb TYPE=OPTIMAL", "REFERENCE=here.pdb of RMSD: give the absolute path"),
        ("EXTERNAL ARG=d FILE=table.dat", "FILE=table.dat of EXTERNAL: give the absolute path"),
    ],
)
def test_what_a_walker_cannot_take_along_is_refused_when_it_is_written(given: str, says: str) -> None:
    with pytest.raises(OptionError, match=re.escape(says)) as told:
        one_of("bias", {"name": "plumed", "input": given})
    assert "\n" not in str(told.value)


def test_a_slab_is_refused_before_workers_start() -> None:
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    with pytest.raises(OptionError, match="Cu4 is periodic in some directions only"):
        SPRING.check([slab])
