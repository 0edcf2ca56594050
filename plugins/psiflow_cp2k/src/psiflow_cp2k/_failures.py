"""The reason why a run failed, from its exit code, output and errors.

The exit code is not enough: it is 0 for a self-consistent field that has not converged. CP2K prints its own reason in a
box around `[ABORT]`. A crash leaves a signal and a backtrace, of which only the signal is informative.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from psiflow_core.errors import ReferenceFailed
from psiflow_core.processes.programs import last_words
from psiflow_cp2k._output import progress

MEMORY = re.compile(
    r"out of memory|cannot allocate|could not allocate|not enough memory|bad_alloc|allocation.*failed", re.I
)
WALL_TIME = re.compile(r"exceeded requested execution time|requested execution time exceeded", re.I)
SLOTS = re.compile(r"not enough slots|could not find enough slots", re.I)
"""Open MPI's message when more ranks are started than the scheduler has granted tasks."""
BAD_INPUT = re.compile(
    r"not found|be opened|multiplicity|electrons|invalid|available|implemented|keyword|section|pars(e|ing)|input",
    re.I,
)
SIGNAL = re.compile(
    r"received signal (?P<name>SIG[A-Z]+)|exited on signal (?P<number>\d+)|Signal: [\w ]+ \((?P<code>\d+)\)"
)
"""The signal as Fortran, `mpirun` and Open MPI report it."""
CHATTER = re.compile(
    r"^#\d+ |^\[[^\]]+\] (\[ *\d+\]|\*\*\*)|^\s*at (\.|/|\?\?)|0x[0-9a-f]{6}|backtrace|MPI_ABORT|MPI_COMM_WORLD|"
    r"NOTE: invoking|You may or may not see|exactly when Open MPI|with errorcode|ORTE_ERROR_LOG|PMIX ERROR|"
    r"^mpirun (noticed|has exited)|^Primary job|Program received signal|non-zero status|"
    r"Process name:|Exit code:|aborted\.|per user-direction",
    re.I,
)
"""Lines of a backtrace, and MPI's additions."""
HEADING = re.compile(r"^ {1,3}([A-Z]+(?: [A-Z/-]+)+)$", re.M)
"""The heading of a part of CP2K's output, for instance `SCF WAVEFUNCTION OPTIMIZATION`."""


def complaint(folder: Path, code: int) -> ReferenceFailed | None:
    """The failure of a run, with the lines that matter; None if it ended well."""
    output, errors = (_text(folder / name) for name in ("label.out", "label.err"))
    boxes = " ".join(_aborts(output))
    if WALL_TIME.search(output):
        return ReferenceFailed(f"CP2K stopped at its own WALLTIME; see {folder}", "wall time")
    if "PROGRAM ENDED" in output and code == 0 and not boxes:
        return None
    if code in (-9, 137) or MEMORY.search(output + errors):
        event = "was killed, as the system does when memory runs out"
        if code not in (-9, 137):
            event = f"ran out of memory: {boxes or _lines(errors or output)}"
        return ReferenceFailed(f"CP2K {event}; give the pool more memory; see {folder}", "memory")
    if "SCF run NOT converged" in boxes:  # later versions abort
        return ReferenceFailed(f"the SCF did not converge: {progress(output)}; see {folder}", "unconverged")
    if SLOTS.search(errors):
        return ReferenceFailed(_about_slots(folder), "engine")
    reason = "bad input" if BAD_INPUT.search(boxes) else "engine"
    cause = boxes or _crash(output, errors, code) or _lines(errors or output)
    return ReferenceFailed(f"CP2K failed (exit code {code}): {cause}; see {folder}", reason)


def is_refusal(folder: Path) -> bool:
    """Whether CP2K stopped by itself and gave a reason."""
    return bool(_aborts(_text(folder / "label.out")))


def _about_slots(folder: Path) -> str:
    return (
        "mpirun does not start the ranks: the scheduler has granted fewer slots than the pool has cores; leave out "
        "the option launch, so that only the pool's cores count, or set it to your scheduler's launcher "
        f"('srun --overlap -n {{ranks}}'); see {folder}"
    )


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.is_file() else ""


def _aborts(output: str) -> list[str]:
    """The text of each box that CP2K draws around the reason of an abort, without the drawing at its left."""
    boxes = re.findall(r"\*\n([^\n]*___[^\n]*\n.*?\[ABORT\].*?)\n \*{70,}", output, re.DOTALL)
    return [" ".join(" ".join(line[11:79].strip(" *") for line in box.splitlines()).split()) for box in boxes]


def _crash(output: str, errors: str, code: int) -> str:
    """The signal that ended the program, and the last part of its output; empty if there was no signal."""
    reported = SIGNAL.search(errors)
    number = -code if code < 0 else code - 128 if 128 < code < 192 else 0
    if reported is not None and reported["name"] is None:
        number = int(reported["number"] or reported["code"])
    if reported is not None and reported["name"]:
        number = signal.Signals[reported["name"]] if reported["name"] in signal.Signals.__members__ else 0
    if not number:
        return ""
    name = _name_of(number)
    parts = HEADING.findall(output)
    place = f"in the part '{parts[-1]}' of its output" if parts else "before it printed anything"
    return f"it was ended by {name} {place}"


def _name_of(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def _lines(output: str) -> str:
    """The last lines that do not belong to a backtrace."""
    lines = [line for line in output.splitlines() if not CHATTER.search(line.strip())]
    return last_words("\n".join(lines))
