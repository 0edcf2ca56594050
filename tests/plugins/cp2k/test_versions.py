"""What different versions of CP2K print is read alike, in the units that they print; what is not known is refused.

`outputs` has what CP2K 2023.1 and 2025.1 (Debian 12 and 13) really wrote for one crystal, cut down to what is read.
"""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import pytest
from ase import Atoms
from psiflow_cp2k import _failures, _output
from psiflow_cp2k.reference import CP2K

from psiflow_core.components import LabelTask
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed

from .conftest import CHEAP

OUTPUTS = Path(__file__).parent / "outputs"
LINE = " ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]             -1.126482791882661\n"


@pytest.fixture
def printed(tmp_path: Path) -> Path:
    """A copy of what 2025.1 wrote."""
    return Path(shutil.copytree(OUTPUTS / "2025.1", tmp_path / "run"))


def with_energy(folder: Path, lines: str) -> Path:
    file = folder / "label.out"
    file.write_text(file.read_text().replace(LINE, lines))
    return folder


@pytest.mark.parametrize("version", ["2023.1", "2025.1"])
def test_versions_say_the_same(version) -> None:
    label = _output.read(OUTPUTS / version, 2, periodic=True)
    assert label.energy == pytest.approx(-30.6531580997, abs=1e-8)
    assert label.forces[0] == pytest.approx([0.30276621, 2.43639727, 3.85462823], abs=1e-6)
    assert label.stress == pytest.approx(
        [0.03190619, 0.03837791, 0.05430404, 0.022668, 0.00989307, 0.00838727], abs=1e-8
    )


@pytest.mark.parametrize(
    ("unit", "number"),
    [
        ("[a.u.]:", -1.126482791882661),
        ("(a.u.):", -1.126482791882661),
        ("[hartree]", -1.126482791882661),
        ("[Ry]", -2.252965583765322),
        ("[eV]", -30.6531580997),
        ("[kcalmol]", -706.878672),
        ("[KJMOL]", -2957.580365),
    ],
)
def test_the_energy_is_in_the_unit_beside_it(unit, number, printed) -> None:
    with_energy(printed, LINE.replace("[hartree]", unit).replace("-1.126482791882661", f"{number:.15f}"))
    assert _output.read(printed, 2, periodic=True).energy == pytest.approx(-30.6531580997, abs=2e-4)


def test_lines_that_begin_alike_are_no_energy(printed) -> None:
    others = [
        " ENERGY| Total FORCE_EVAL ( QS ) gap [hartree]                  0.100000000000000",
        " ENERGY| Total FORCE_EVAL ( QS ) energy gap [hartree]           0.100000000000000",
        " ENERGY| Total FORCE_EVAL ( QS ) free energy [hartree]         -1.500000000000000",
        " ENERGY| Total FORCE_EVAL ( MIXED ) energy [hartree]           -7.000000000000000",
        " ENERGY| Total FORCE_EVAL ( FIST ) energy [a.u.]:              -7.000000000000000",
    ]
    with_energy(printed, LINE + "\n\n".join(others) + "\n")
    assert _output.read(printed, 2, periodic=True).energy == pytest.approx(-30.6531580997, abs=1e-8)
    with_energy(printed, "")
    with pytest.raises(ReferenceFailed, match="no energy"):
        _output.read(printed, 2, periodic=True)


@pytest.mark.parametrize("number", ["NaN", "************"])
def test_an_energy_that_is_no_number_is_none(number, printed) -> None:
    with_energy(printed, LINE.replace("-1.126482791882661", number))
    with pytest.raises(ReferenceFailed, match="where the energy is expected"):
        _output.read(printed, 2, periodic=True)


@pytest.mark.parametrize(
    ("file", "unit", "other", "said"),
    [
        ("label.out", "[hartree]", "[furlong]", "energy is in the unit 'furlong'"),
        ("label-forces-1_0.xyz", "[hartree/bohr]", "[mN]", "force is in the unit 'mN'"),
        ("label-stress-1_0.stress_tensor", "[bar]", "[atm]", "stress is in the unit 'atm'"),
    ],
)
def test_an_unknown_unit_is_refused(file, unit, other, said, printed) -> None:
    text = (printed / file).read_text()
    (printed / file).write_text(text.replace(unit, other))
    with pytest.raises(ReferenceFailed, match=said):
        _output.read(printed, 2, periodic=True)


def stand_in(folder: Path, version: str, change: str = "") -> str:
    """A program that writes what a version wrote, whatever its input; by default it ends well."""
    program = folder / f"cp2k-{version}"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, shutil\n"
        f"for file in pathlib.Path({str(OUTPUTS / version)!r}).iterdir():\n    shutil.copy(file, file.name)\n"
        "out = pathlib.Path('label.out')\n"
        f"out.write_text(out.read_text(){change})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


PAIR = Atoms("H2", [[0.1, 0.2, 0.3], [0.3, 0.6, 0.9]], cell=[3.6, 3.8, 4.0], pbc=True)


@pytest.mark.parametrize("version", ["2023.1", "2025.1"])
def test_each_version_gives_a_label(version, tmp_path) -> None:
    options = CP2K.parse({**CHEAP, "command": stand_in(tmp_path, version)})
    assert options.label(PAIR, LabelTask(tmp_path)).energy == pytest.approx(-30.6531580997, abs=1e-8)


def test_check_finds_that_labels_cannot_be_read(tmp_path) -> None:
    """Before the first one is paid for: doctor asks it too, without structures."""
    silent = stand_in(tmp_path, "2025.1", ".replace('ENERGY|', 'ENERGIE|')")
    with pytest.raises(OptionError, match="an isolated H atom: CP2K printed no energy"):
        CP2K.parse({**CHEAP, "command": silent}).check([])


def test_what_the_user_lets_print_hides_nothing(hydrogen, label) -> None:
    """Other units, other files, and nothing at all."""
    level = """&FORCE_EVAL
     &PRINT
      &PROGRAM_RUN_INFO OFF
       ENERGY_UNIT eV
      &END
      &FORCES OFF
      &END
     &END
     &DFT
      &QS
       METHOD PM6
      &END
      &SCF
       &PRINT
        &PROGRAM_RUN_INFO OFF
        &END
       &END
      &END
     &END
    &END"""
    plain = "&FORCE_EVAL\n&DFT\n&QS\nMETHOD PM6\n&END\n&END\n&END"
    assert label(hydrogen, force_eval=level).energy == label(hydrogen, force_eval=plain).energy


def test_a_crash_is_told_by_its_signal_and_the_place() -> None:
    """What CP2K 2023.1 wrote when its xTB met a Poisson solver that it cannot use."""
    failure = _failures.complaint(OUTPUTS / "crash", -11)
    assert failure is not None
    assert failure.reason == "engine"
    assert "SIGSEGV (Segmentation fault) in the part 'SCF WAVEFUNCTION OPTIMIZATION'" in str(failure)
    for noise in ("0x", "#1", "???", "Backtrace"):
        assert noise not in str(failure)


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        ("mpirun noticed that process rank 1 with PID 0 on node n exited on signal 11 (Segmentation fault).", 139,
         "SIGSEGV"),
        ("[n:1] *** Process received signal ***\n[n:1] Signal: Floating point exception (8)\n[n:1] [ 0] /lib", 136,
         "SIGFPE"),
        ("At line 12 of file a.F\nFortran runtime error: Index out of bounds\n\nError termination. Backtrace:\n"
         "#0  0x7f00 in ???\n", 2, "Fortran runtime error: Index out of bounds"),
        ("", 1, "it printed nothing"),
    ],
)  # fmt: skip
def test_a_failure_is_never_the_end_of_a_backtrace(errors, code, said, tmp_path) -> None:
    (tmp_path / "label.err").write_text(errors)
    failure = str(_failures.complaint(tmp_path, code))
    assert said in failure
    for noise in ("0x", "Backtrace", "[ 0]"):
        assert noise not in failure


def test_a_level_that_crashes_in_a_box_is_found_by_check(tmp_path, hydrogen) -> None:
    crashing = tmp_path / "cp2k"
    crashing.write_text("#!/bin/sh\ngrep -q 'RUN_TYPE NONE' label.inp && exec cp2k.psmp \"$@\"\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    with pytest.raises(EngineMissing, match=r"an isolated H atom: .*SIGSEGV.*before it printed anything"):
        CP2K.parse({**CHEAP, "command": str(crashing)}).check([hydrogen])
