"""What CP2K says: energy, forces, stress, and what went wrong.

The exit code alone does not tell: it is 0 for a self-consistent field that has not converged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import Bohr, GPa, Hartree

from psiflow_core.errors import ReferenceFailed
from psiflow_core.structures import Array, Label

ENERGY = re.compile(r"ENERGY\| Total FORCE_EVAL.*:\s+(\S+)")
ENTROPY = re.compile(r"Electronic entropic energy:\s+(\S+)")
"""−TS. [Eh]"""
STATUS = re.compile(
    r"(?P<yes>outer SCF loop converged|SCF run converged in)|(?P<no>outer SCF loop FAILED|SCF run NOT converged)"
)
STEP = re.compile(r"^ +\d+ [A-Z].* [-+]?\d\.\d+E[-+]\d+$", re.MULTILINE)
"""A row of the table of the self-consistent field."""
STEADY = 100.0
"""The most that the energy may change in the last step, over the threshold of the self-consistent field."""
FORCE_UNITS = ("[a.u.]", "[hartree/bohr]")
STRESS_UNITS = {"[GPa]": GPa, "[bar]": 1e-4 * GPa}
NUMBER = r"[-+]?\d+\.\d+(?:[EeDd][-+]?\d+)?"

MEMORY = re.compile(
    r"out of memory|cannot allocate|could not allocate|not enough memory|bad_alloc|allocation.*failed", re.I
)
WALL_TIME = re.compile(r"exceeded requested execution time|requested execution time exceeded", re.I)
BAD_INPUT = re.compile(
    r"not found|be opened|multiplicity|electrons|invalid|available|implemented|keyword|section|pars(e|ing)|input",
    re.I,
)


@dataclass(frozen=True)
class Result:
    """One run that ended well."""

    free_energy: float
    """What forces and stress are the gradient of. [eV]"""
    entropic: float
    """−TS of smeared occupations, 0 without. [eV]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array | None
    """[eV/Å³], ASE's sign and order"""

    def label(self) -> Label:
        """With the energy extrapolated to zero electronic temperature: the mean of the free and inner energies."""
        return Label(self.free_energy - 0.5 * self.entropic, self.forces, self.stress)


def converged(said: str, threshold: float) -> bool:
    """Whether the last self-consistent field did, its energy too.

    DIIS stops when the density does not change. In a small symmetric molecule (H2 in a minimal basis) that is so from
    the first step on, while orbital energies, and forces with them, still belong to an older density.

    Args:
        threshold: `EPS_SCF`; infinite where there are no forces, in a free atom. [Eh]
    """
    found = [match.lastgroup == "yes" for match in STATUS.finditer(said)]
    steps = STEP.findall(said)
    return bool(found and found[-1] and steps and abs(float(steps[-1].split()[-1])) < STEADY * threshold)


def progress(said: str) -> str:
    """How far the self-consistent field came: steps, and the last one as CP2K prints it."""
    steps = STEP.findall(said)
    return f"{len(steps)} steps, the last: {' '.join(steps[-1].split())}" if steps else "no step"


def read(folder: Path, atoms: int, periodic: bool) -> Result:
    """The results of a run that ended well.

    Raises:
        ReferenceFailed: "engine", something is missing or in units that are not known.
    """
    said = (folder / "label.out").read_text(errors="replace")
    energies, entropies = ENERGY.findall(said), ENTROPY.findall(said)
    if not energies:
        raise ReferenceFailed(f"CP2K printed no energy; see {folder}")
    return Result(
        float(energies[-1]) * Hartree,
        float(entropies[-1]) * Hartree if entropies else 0.0,
        _forces(_only(folder, "*forces*"), atoms),
        _stress(_only(folder, "*stress*")) if periodic else None,
    )


def complaint(folder: Path, code: int) -> ReferenceFailed | None:
    """What a run says went wrong, with the lines that matter; None if it ended well."""
    said, errors = (_text(folder / name) for name in ("label.out", "label.err"))
    everything = said + errors
    lines = " ".join(_aborts(said)) or _last_lines(errors or said)
    if WALL_TIME.search(said):
        return ReferenceFailed(f"CP2K stopped at its own WALLTIME; see {folder}", "wall time")
    if "PROGRAM ENDED" in said and code == 0 and not _aborts(said):
        return None
    if code in (-9, 137) or MEMORY.search(everything):
        told = (
            "was killed, as the system does where memory is short"
            if code in (-9, 137)
            else f"ran out of memory: {lines}"
        )
        return ReferenceFailed(f"CP2K {told}; give the pool more; see {folder}", "memory")
    if "SCF run NOT converged" in lines:  # later versions abort
        return ReferenceFailed(f"the SCF did not converge: {progress(said)}; see {folder}", "unconverged")
    reason = "bad input" if _aborts(said) and BAD_INPUT.search(lines) else "engine"
    return ReferenceFailed(f"CP2K failed (exit code {code}): {lines}; see {folder}", reason)


def is_refusal(folder: Path) -> bool:
    """Whether CP2K ended itself, and told why."""
    return bool(_aborts(_text(folder / "label.out")))


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.is_file() else ""


def _aborts(said: str) -> list[str]:
    """What stands in the boxes that CP2K draws around the reason of an abort, beside the figure."""
    boxes = re.findall(r"\*\n([^\n]*___[^\n]*\n.*?\[ABORT\].*?)\n \*{70,}", said, re.DOTALL)
    return [" ".join(" ".join(line[11:79].strip(" *") for line in box.splitlines()).split()) for box in boxes]


def _last_lines(said: str, count: int = 4) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip(" -*")]
    return " / ".join(lines[-count:]) or "it said nothing"


def _only(folder: Path, pattern: str) -> str:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise ReferenceFailed(f"CP2K wrote {len(files)} files {pattern} where one is expected; see {folder}")
    return files[0].read_text()


def _forces(said: str, atoms: int) -> Array:
    if not any(unit in said for unit in FORCE_UNITS):
        raise ReferenceFailed(f"CP2K's forces are in a unit that is not known: {said[:200]!r}")
    rows = re.findall(rf"^(?:\s*FORCES\|)?\s+\d+\s+(?:\d+\s+\w+\s+)?({NUMBER})\s+({NUMBER})\s+({NUMBER})", said, re.M)
    if len(rows) != atoms:
        raise ReferenceFailed(f"CP2K printed forces of {len(rows)} atoms where there are {atoms}")
    forces: Array = np.array(rows, float) * (Hartree / Bohr)
    return forces


def _stress(said: str) -> Array:
    """CP2K prints −(1/V) dE/dε."""
    unit = next((factor for name, factor in STRESS_UNITS.items() if name in said), None)
    rows = re.findall(rf"^(?:\s*STRESS\|)?\s+[xyzXYZ]\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})", said, re.M)
    if unit is None or len(rows) < 3:
        raise ReferenceFailed(f"CP2K's stress cannot be read: {said[:200]!r}")
    stress: Array = -unit * full_3x3_to_voigt_6_stress(np.array(rows[:3], float))  # eigenvectors follow
    return stress
