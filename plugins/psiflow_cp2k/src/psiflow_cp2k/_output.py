"""CP2K's results: energy, forces and stress, each in the unit that is printed next to it.

Versions differ. The energy is headed `[a.u.]:` up to 2024, and `[hartree]` from 2025 on, where other lines begin the
same way (`gap`, `free energy`). Forces are in `[a.u.]` or `[hartree/bohr]`, the stress is in `[GPa]` or `[bar]`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import Bohr, GPa, Hartree, J, Rydberg, kcal, kJ, mol

from psiflow_core.errors import ReferenceFailed
from psiflow_core.structures import Array, Label

ENERGY = re.compile(
    r"^ *ENERGY\| Total FORCE_EVAL \( *(?:QS|QUICKSTEP) *\) energy *[\[(](?P<unit>[^\])]*)[\])]:? +(?P<number>\S+) *$",
    re.M,
)
"""With smeared occupations, this is the free energy E − TS; forces and stress are its gradient."""
STATUS = re.compile(
    r"(?P<yes>outer SCF loop converged|SCF run converged in)|(?P<no>outer SCF loop FAILED|SCF run NOT converged)"
)
STEP = re.compile(r"^ +\d+ [A-Z].* [-+]?\d\.\d+E[-+]\d+$", re.MULTILINE)
"""A row of the table of the self-consistent field."""
STEADY = 100.0
"""Largest change of the energy in the last step, relative to the threshold of the self-consistent field."""
FORCES = re.compile(r"^ *(?:ATOMIC FORCES in|FORCES\| Atomic forces) *\[(?P<unit>[^\]]*)\]", re.M)
STRESS = re.compile(r"^ *(?:STRESS\| Analytical stress tensor|STRESS TENSOR) *\[(?P<unit>[^\]]*)\]", re.M)
ENERGY_UNITS = {
    "a.u.": Hartree, "hartree": Hartree, "ry": Rydberg, "ev": 1.0, "kev": 1e3, "kcalmol": kcal / mol, "kjmol": kJ / mol,
    "jmol": 1e-3 * kJ / mol, "joule": J, "j": J,
}  # fmt: skip
FORCE_UNITS = {
    "a.u.": Hartree / Bohr, "hartree/bohr": Hartree / Bohr, "hartree*bohr^-1": Hartree / Bohr, "ev/angstrom": 1.0,
    "ev*angstrom^-1": 1.0,
}  # fmt: skip
STRESS_UNITS = {"gpa": GPa, "mpa": 1e-3 * GPa, "pa": 1e-9 * GPa, "kbar": 0.1 * GPa, "bar": 1e-4 * GPa}
"""CP2K's names of units in lower case, and their values in ASE's units."""
NUMBER = r"[-+]?\d+\.\d+(?:[EeDd][-+]?\d+)?"


def converged(output: str, threshold: float) -> bool:
    """Whether the last self-consistent field has converged, its energy included.

    DIIS stops when the density does not change. In a small symmetric molecule (H2 in a minimal basis) it does not
    change from the first step on, while orbital energies, and hence forces, still belong to an older density.

    Args:
        threshold: `EPS_SCF`; infinite for a free atom, which has no forces. [Eh]
    """
    outcomes = [match.lastgroup == "yes" for match in STATUS.finditer(output)]
    steps = STEP.findall(output)
    return bool(outcomes and outcomes[-1] and steps and abs(float(steps[-1].split()[-1])) < STEADY * threshold)


def progress(output: str) -> str:
    """Progress of the self-consistent field: the number of steps, and the last one as CP2K prints it."""
    steps = STEP.findall(output)
    return f"{len(steps)} steps, the last: {' '.join(steps[-1].split())}" if steps else "no step"


def read(folder: Path, atoms: int, periodic: bool) -> Label:
    """The results of a run that ended well.

    Raises:
        ReferenceFailed: "engine": a result is missing or in an unknown unit.
    """
    energies = list(ENERGY.finditer((folder / "label.out").read_text(errors="replace")))
    if not energies:
        raise ReferenceFailed(f"CP2K printed no energy in a format that psiflow knows; see {folder}")
    unit, number = energies[-1]["unit"], _number(energies[-1]["number"])
    return Label(
        number * _factor(ENERGY_UNITS, unit, "energy"),
        _forces(_only(folder, "*forces*"), atoms),
        _stress(_only(folder, "*stress*")) if periodic else None,
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ReferenceFailed(f"CP2K printed {text!r} where the energy is expected")
    return number


def _factor(units: dict[str, float], unit: str, quantity: str) -> float:
    """The value of a unit, in ASE's units."""
    factor = units.get(unit.strip().lower())
    if factor is None:
        raise ReferenceFailed(
            f"CP2K's {quantity} is in the unit {unit!r}, which psiflow does not know (known: {', '.join(units)})"
        )
    return factor


def _only(folder: Path, pattern: str) -> str:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise ReferenceFailed(f"CP2K wrote {len(files)} files {pattern} where one is expected; see {folder}")
    return files[0].read_text()


def _forces(output: str, atoms: int) -> Array:
    head = FORCES.search(output)
    rows = re.findall(rf"^(?:\s*FORCES\|)?\s+\d+\s+(?:\d+\s+\w+\s+)?({NUMBER})\s+({NUMBER})\s+({NUMBER})", output, re.M)
    if head is None:
        raise ReferenceFailed(f"CP2K's forces cannot be read: {output[:200]!r}")
    if len(rows) != atoms:
        raise ReferenceFailed(f"CP2K printed forces of {len(rows)} atoms; the structure has {atoms}")
    forces: Array = np.array(rows, float) * _factor(FORCE_UNITS, head["unit"], "force")
    return forces


def _stress(output: str) -> Array:
    """CP2K prints −(1/V) dE/dε."""
    head = STRESS.search(output)
    rows = re.findall(rf"^(?:\s*STRESS\|)?\s+[xyzXYZ]\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})", output, re.M)
    if head is None or len(rows) < 3:
        raise ReferenceFailed(f"CP2K's stress cannot be read: {output[:200]!r}")
    factor = _factor(STRESS_UNITS, head["unit"], "stress")
    stress: Array = -factor * full_3x3_to_voigt_6_stress(np.array(rows[:3], float))  # eigenvectors follow
    return stress
