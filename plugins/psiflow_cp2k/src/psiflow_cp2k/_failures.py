"""What went wrong in a run, from its exit code, output and errors.

The exit code alone does not tell: it is 0 for a self-consistent field that has not converged. CP2K's own words stand in
a box around `[ABORT]`; a crash leaves a signal and a backtrace, of which only the signal says something.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from psiflow_core.errors import ReferenceFailed
from psiflow_cp2k._output import progress

MEMORY = re.compile(
    r"out of memory|cannot allocate|could not allocate|not enough memory|bad_alloc|allocation.*failed", re.I
)
WALL_TIME = re.compile(r"exceeded requested execution time|requested execution time exceeded", re.I)
SLOTS = re.compile(r"not enough slots|could not find enough slots", re.I)
"""Open MPI's words where a scheduler has granted fewer tasks than ranks are started."""
BAD_INPUT = re.compile(
    r"not found|be opened|multiplicity|electrons|invalid|available|implemented|keyword|section|pars(e|ing)|input",
    re.I,
)
SIGNAL = re.compile(
    r"received signal (?P<name>SIG[A-Z]+)|exited on signal (?P<number>\d+)|Signal: [\w ]+ \((?P<code>\d+)\)"
)
"""As Fortran, `mpirun` and Open MPI tell it."""
CHATTER = re.compile(
    r"^#\d+ |^\[[^\]]+\] (\[ *\d+\]|\*\*\*)|^\s*at (\.|/|\?\?)|0x[0-9a-f]{6}|backtrace|MPI_ABORT|MPI_COMM_WORLD|"
    r"NOTE: invoking|You may or may not see|exactly when Open MPI|with errorcode|ORTE_ERROR_LOG|PMIX ERROR|"
    r"^mpirun (noticed|has exited)|^Primary job|Program received signal|non-zero status|"
    r"Process name:|Exit code:|aborted\.|per user-direction",
    re.I,
)
"""Lines of a backtrace, and what MPI adds."""
HEADING = re.compile(r"^ {1,3}([A-Z]+(?: [A-Z/-]+)+)$", re.M)
"""A part of CP2K's output, `SCF WAVEFUNCTION OPTIMIZATION` for instance."""


def complaint(folder: Path, code: int) -> ReferenceFailed | None:
    """What a run says went wrong, with the lines that matter; None if it ended well."""
    said, errors = (_text(folder / name) for name in ("label.out", "label.err"))
    boxes = " ".join(_aborts(said))
    if WALL_TIME.search(said):
        return ReferenceFailed(f"CP2K stopped at its own WALLTIME; see {folder}", "wall time")
    if "PROGRAM ENDED" in said and code == 0 and not boxes:
        return None
    if code in (-9, 137) or MEMORY.search(said + errors):
        told = "was killed, as the system does where memory is short"
        if code not in (-9, 137):
            told = f"ran out of memory: {boxes or _lines(errors or said)}"
        return ReferenceFailed(f"CP2K {told}; give the pool more; see {folder}", "memory")
    if "SCF run NOT converged" in boxes:  # later versions abort
        return ReferenceFailed(f"the SCF did not converge: {progress(said)}; see {folder}", "unconverged")
    if SLOTS.search(errors):
        return ReferenceFailed(_about_slots(folder), "engine")
    reason = "bad input" if BAD_INPUT.search(boxes) else "engine"
    told = boxes or _crash(said, errors, code) or _lines(errors or said)
    return ReferenceFailed(f"CP2K failed (exit code {code}): {told}; see {folder}", reason)


def is_refusal(folder: Path) -> bool:
    """Whether CP2K ended itself, and told why."""
    return bool(_aborts(_text(folder / "label.out")))


def _about_slots(folder: Path) -> str:
    return (
        "mpirun does not start the ranks: the scheduler has granted fewer slots than the pool has cores; leave the "
        "option launch out, which counts the pool's cores alone, or set it to your scheduler's own "
        f"('srun --overlap -n {{ranks}}'); see {folder}"
    )


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.is_file() else ""


def _aborts(said: str) -> list[str]:
    """What stands in the boxes that CP2K draws around the reason of an abort, beside the figure."""
    boxes = re.findall(r"\*\n([^\n]*___[^\n]*\n.*?\[ABORT\].*?)\n \*{70,}", said, re.DOTALL)
    return [" ".join(" ".join(line[11:79].strip(" *") for line in box.splitlines()).split()) for box in boxes]


def _crash(said: str, errors: str, code: int) -> str:
    """The signal that ended the program, and the part of the output that it came to; empty if there was none."""
    told = SIGNAL.search(errors)
    number = -code if code < 0 else code - 128 if 128 < code < 192 else 0
    if told is not None and told["name"] is None:
        number = int(told["number"] or told["code"])
    if told is not None and told["name"]:
        number = signal.Signals[told["name"]] if told["name"] in signal.Signals.__members__ else 0
    if not number:
        return ""
    name = _name_of(number)
    parts = HEADING.findall(said)
    place = f"in the part '{parts[-1]}' of its output" if parts else "before it printed anything"
    return f"it was ended by {name} {place}"


def _name_of(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def _lines(said: str, count: int = 4) -> str:
    """The last lines that are no backtrace."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" -*=") and not CHATTER.search(line.strip())]
    return " / ".join(lines[-count:]) or "it said nothing"
