"""What goes wrong has a type, a reason and the line of CP2K's output that matters; it leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ase import Atoms
from psiflow_cp2k import _output
from psiflow_cp2k.reference import CP2K
from psiflow_toys.waiting import survivors, wait_until

from psiflow_core.components import LabelTask, Resources
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError

from .conftest import CHEAP, ONE_CORE

WRONG_KEYWORD = "&FORCE_EVAL\n &DFT\n  &SCF\n   MAX_SFC 3\n  &END\n &END\n&END"


def failure_of(atoms: Atoms, folder: Path, resources: Resources = ONE_CORE, **options: object) -> ReferenceFailed:
    level = {} if "force_eval" in options else CHEAP
    with pytest.raises(ReferenceFailed) as failure:
        CP2K.parse({**level, **options}).label(atoms, LabelTask(folder, resources))
    return failure.value


def test_a_field_that_does_not_converge_names_every_rung(hydrogen, tmp_path) -> None:
    failure = failure_of(hydrogen, tmp_path, max_scf=2, eps_scf=1e-12)
    assert failure.reason == "unconverged"
    for rung in ("DIIS", "orbital transformation", "Broyden", "small steps"):
        assert rung in str(failure)


def test_the_next_rung_is_tried_where_one_fails(water, label, tmp_path) -> None:
    """A user's own section that allows three steps."""
    told = CP2K.parse(CHEAP)
    text = full_input(told, water).replace("MAX_SCF 150", "MAX_SCF 3")
    CP2K.parse({"force_eval": text, "vacuum": 2.5}).label(water, LabelTask(tmp_path))
    assert [folder.name for folder in sorted(tmp_path.iterdir())] == ["run-0", "run-1"]


def test_a_field_whose_energy_moves_is_not_believed(tmp_path) -> None:
    """H2 in a minimal basis: its density stands still from the first step on, its orbital energies do not."""
    pair = Atoms("H2", [[0, 0, 0], [0, 0, 0.9]])
    found = CP2K.parse(CHEAP).label(pair, LabelTask(tmp_path))
    said = (tmp_path / "run-0" / "label.out").read_text()
    assert "SCF run converged" in said
    assert not _output.converged(said, 1e-6)
    down, up = (
        CP2K.parse(CHEAP).label(Atoms("H2", [[0, 0, 0], [0, 0, z]]), LabelTask(tmp_path / f"{z}")).energy
        for z in (0.899, 0.901)
    )
    assert found.forces[1, 2] == pytest.approx(-(up - down) / 0.002, abs=5e-3)  # by DIIS: 11e-3 off


def test_every_step_of_a_field_is_counted() -> None:
    """CP2K writes no sign before an energy that rises."""
    rows = [
        "     1 P_Mix/Diag. 0.40E+00    0.2     0.66410806        -0.7375186621 -7.38E-01",
        "    12 Broy./Diag. 0.30E+00   12.8     0.00138816        -0.3208158627  2.36E-01",
        "     3 OT DIIS     0.15E+00    1.9     9.9300E-06       -17.2118954480 -5.90E-09",
    ]
    assert _output.progress("\n".join(rows)).startswith("3 steps, the last: 3 OT DIIS")
    assert not _output.converged("\n".join(rows[:2]) + "\n *** SCF run converged in 12 steps ***", 1e-6)
    assert _output.converged("\n".join(rows) + "\n *** SCF run converged in 3 steps ***", 1e-6)
    assert not _output.converged("\n".join(rows) + "\n outer SCF loop FAILED to converge", 1e-6)


def full_input(options: CP2K, atoms: Atoms) -> str:
    from psiflow_cp2k import _run_input

    return "".join(section.text() for section in _run_input.of(options, atoms).sections)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"basis": "QZVP-MOLOPT-GTH"}, "basis set <QZVP-MOLOPT-GTH> for element <H>.*<BASIS_MOLOPT>"),
        ({"basis_file": "BASIS_NOWHERE"}, "BASIS_NOWHERE"),
        ({"potential_file": "HF_POTENTIALS"}, "GTH-PBE"),
        ({"force_eval": WRONG_KEYWORD}, "unknown keyword MAX_SFC in section SCF"),
    ],
)
def test_input_that_cp2k_refuses_is_refused_early_and_in_its_words(options, said, hydrogen, tmp_path) -> None:
    level = {} if "force_eval" in options else CHEAP
    with pytest.raises(OptionError, match=said) as refusal:
        CP2K.parse({**level, **options}).check([hydrogen])
    assert "see /" not in str(refusal.value), "the folder of a dry run is gone"
    failure = failure_of(hydrogen, tmp_path, **options)
    assert failure.reason == "bad input"


@pytest.mark.parametrize("basis", ["SZV-MOLOPT-GTH", "TZVP-MOLOPT-GTH"])
def test_what_works_passes(basis, water, crystal) -> None:
    CP2K(basis=basis).check([water, crystal])
    CP2K(basis=basis).check([])


@pytest.mark.parametrize(
    ("functional", "dispersion"),
    [(f, d) for f in ("pbe", "revpbe", "pbesol", "blyp", "bp") for d in ("d3bj", "d3")] + [("lda", None)],
)
def test_every_functional_has_its_potential_and_dispersion(functional, dispersion, water) -> None:
    CP2K(functional=functional, dispersion=dispersion).check([water])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"functional": "b3lyp"}, "functional"),
        ({"functional": "lda"}, "dispersion=None"),
        ({"force_eval": "no/such/file.inp"}, "No such file"),
        ({"force_eval": ""}, "neither a section"),
        ({"force_eval": "&FORCE_EVAL\n &DFT\n&END FORCE_EVAL"}, "line 3.*&END DFT is expected"),
        ({"force_eval": "&DFT\n&END"}, "0 sections &FORCE_EVAL"),
        ({"force_eval": "&FORCE_EVAL\n&DFT\n@INCLUDE x\n&END\n&END"}, "preprocessor"),
        ({"force_eval": "&FORCE_EVAL\nMETHOD FIST\n&DFT\n&END\n&END"}, "METHOD FIST"),
        ({"force_eval": "&FORCE_EVAL\n&DFT\n&END\n&END", "cutoff": 300.0}, "force_eval replaces cutoff"),
        ({"launch": "srun -n {cores}"}, "ranks"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said) -> None:
    with pytest.raises(OptionError, match=said):
        CP2K.parse(options)


def test_a_multiplicity_that_cannot_be_is_bad_input(tmp_path) -> None:
    failure = failure_of(Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], info={"spin": 5}), tmp_path)
    assert failure.reason == "bad input"


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], cell=[5, 5, 9], pbc=[True, True, False]), "some directions only"),
        (Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]), "spin multiplicity"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]), "apart"),
    ],
)
def test_structures_that_cannot_be_labelled_are_refused(atoms, said, tmp_path) -> None:
    with pytest.raises(StructureError, match=said):
        CP2K.parse(CHEAP).check([atoms])
    assert failure_of(atoms, tmp_path).reason == "bad input"


def test_a_missing_program_is_told_with_what_to_do(hydrogen, tmp_path) -> None:
    with pytest.raises(EngineMissing, match=r"no-cp2k.*set command"):
        CP2K(command="no-cp2k").check([])
    with pytest.raises(EngineMissing, match="no-module"):
        CP2K(before="no-module load cp2k || exit 3").check([])
    assert failure_of(hydrogen, tmp_path, command="no-cp2k").reason == "engine"


def test_wall_time_ends_cp2k_before_the_worker_is_ended(water, tmp_path) -> None:
    failure = failure_of(water, tmp_path, Resources(wall_time=1.5), cutoff=900.0)
    assert failure.reason == "wall time"
    assert not psutil.Process().children()


def test_memory_ends_cp2k_before_the_worker_is_ended(water, tmp_path) -> None:
    failure = failure_of(water, tmp_path, Resources(memory=0.4), cutoff=900.0, vacuum=4.0)
    assert failure.reason == "memory"
    assert not psutil.Process().children()


def test_scratch_is_cleaned_and_logs_are_kept(hydrogen, tmp_path) -> None:
    failure_of(hydrogen, tmp_path, max_scf=2, eps_scf=1e-12)
    kept = {file.name for file in tmp_path.glob("run-*/*")}
    assert kept == {"label.inp", "label.out", "label.err"}


ENDLESS = """
import json, sys
from pathlib import Path
from ase.build import molecule
from psiflow_core.components import LabelTask, Resources
from psiflow_cp2k.reference import CP2K
folder, cores = Path(sys.argv[1]), int(sys.argv[2])
CP2K(cutoff=900.0).label(molecule("H2O"), LabelTask(folder, Resources(cores=cores)))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("cores", [1, 2])
def test_cp2k_does_not_outlive_a_worker_that_is_killed(cores, number, tmp_path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path), str(cores)], env=dict(os.environ))
    wait_until(lambda: (tmp_path / "run-0" / "label.out").is_file() and len(running(tmp_path)) >= cores, worker)
    left = running(tmp_path)
    worker.send_signal(number)
    worker.wait()
    assert not survivors(left)


def running(folder: Path) -> list[psutil.Process]:
    """CP2K's processes in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if "cp2k" in process.name() and str(folder) in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found
