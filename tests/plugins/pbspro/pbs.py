"""A stand-in for the commands of PBS: it fails in the same words, with the same exit codes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from jobs import Jobs

QUEUES = {"workq", "held", "full"}
"""Jobs in `held` never start; `full` takes none now."""

SERVER = "standin"


def qsub(state: str, words: list[str]) -> int:
    if _down(state, "qsub"):
        return 111
    script = Path(words[-1]).read_text()
    options = _options([*_directives(script), *words[:-1]])
    queue = options.get("-q", "workq")
    if queue not in QUEUES:
        return _fail("qsub: Unknown queue", 170)
    if queue == "full":
        return _fail("qsub: would exceed queue full's per-user limit of jobs in 'Q' state", 38)
    if "ncpus=9999" in options["select"]:
        return _fail("qsub: Job violates queue and/or server resource limits", 188)
    held = "Not Running: Insufficient amount of resource: ncpus" if queue == "held" else ""
    wanted = options.get("walltime")
    fields = {"name": options["-N"], "output": options["-o"], "queue": queue, "wanted": wanted, "options": options}
    number = Jobs(Path(state)).add(script, _seconds(wanted) if wanted else None, held, **fields)
    print(f"{number}.{SERVER}")
    return 0


def qstat(state: str, words: list[str]) -> int:
    if _down(state, "qstat"):
        return 111
    if "-x" in words and (Path(state) / "no_history").exists():
        return _fail("qstat: PBS is not configured to maintain job history", 36)
    code, known = 0, Jobs(Path(state)).all()
    for word in words:
        if word.startswith("-"):
            continue
        job = known.get(int(word.partition(".")[0]))
        if job is None or (job["ended"] and (Path(state) / "no_history").exists()):
            code = _fail(f"qstat: Unknown Job Id {word}", 153)
        elif job["ended"] and "-x" not in words:
            code = _fail(f"qstat: {word} Job has finished, use -x or -H to obtain historical job information", 35)
        else:
            print("\n".join(_shown(word, job)), end="\n\n")
    return code


def qselect(state: str, words: list[str]) -> int:
    if _down(state, "qselect"):
        return 111
    for number, job in Jobs(Path(state)).all().items():
        if not job["ended"]:
            print(f"{number}.{SERVER}")
    return 0


def qdel(state: str, words: list[str]) -> int:
    if _down(state, "qdel"):
        return 111
    jobs, code = Jobs(Path(state)), 0
    for word in words:
        number = int(word.partition(".")[0])
        job = jobs.all().get(number)
        if job is None:
            code = _fail(f"qdel: Unknown Job Id {word}", 153)
        elif job["ended"]:
            code = _fail(f"qdel: Job has finished {word}", 35)
        else:
            jobs.end(number, "deleted")
    return code


def _shown(identity: str, job: dict[str, Any]) -> list[str]:
    """The lines of `qstat -f`; those that are longer than 80 characters go on in the next one."""
    end = job["ended"]
    fields = {"Job_Name": job["name"], "queue": job["queue"]}
    fields["job_state"] = "F" if end else "Q" if job["held"] else "R"
    fields["comment"] = "Job run at Fri Nov 27 at 07:00 on (node-1:ncpus=1)"
    if job["held"]:
        fields["comment"] = job["held"]
    if job["wanted"]:
        fields["Resource_List.walltime"] = job["wanted"]
    if end:
        fields["substate"] = "91" if end["why"] == "deleted" else "92"
        code = end["code"]
        if code is not None:
            fields["Exit_status"] = str(-29 if end["why"] == "walltime" else code if code >= 0 else 256 - code)
    lines = [f"Job Id: {identity}"]
    for name, value in fields.items():
        line = f"    {name} = {value}"
        while len(line) > 79:
            lines.append(line[:79])
            line = "\t" + line[79:]
        lines.append(line)
    return lines


def _directives(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if line.startswith("#PBS ")]
    return [word for line in lines for word in shlex.split(line.removeprefix("#PBS "))]


def _options(words: list[str]) -> dict[str, str]:
    """Options by flag; resources by name."""
    found, rest = {}, iter(words)
    for flag in rest:
        value = next(rest)
        if flag == "-l":
            flag, _, value = value.partition("=")
        found[flag] = value
    return found


def _seconds(clock: str) -> float:
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return 3600.0 * hours + 60 * minutes + seconds


def _down(state: str, command: str) -> bool:
    if not (Path(state) / "down").exists():
        return False
    _fail(f"Connection refused\n{command}: cannot connect to server {SERVER} (errno=111)", 111)
    return True


def _fail(words: str, code: int) -> int:
    print(words, file=sys.stderr)
    return code
