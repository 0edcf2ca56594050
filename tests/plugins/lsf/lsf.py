"""A stand-in for the commands of LSF: it fails in the same words."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from jobs import Jobs

QUEUES = {"normal", "held", "full"}
"""Jobs in `held` never start; `full` takes none now."""

FLAGS = {"-rn", "-json", "-B"}
"""Flags without a value."""


def bsub(state: str, words: list[str]) -> int:
    if _down(state):
        return 255
    script = sys.stdin.read()
    options = _options([*_directives(script), *words])
    queue = options.get("-q", "normal")
    if queue not in QUEUES:
        return _fail(f"{queue}: No such queue. Job not submitted.")
    if queue == "full":
        return _fail("User <me>: Pending job threshold reached. Retrying in 60 seconds...")
    if int(options["-n"]) > 512:
        return _fail("Too many processors requested. Job not submitted.")
    held = "Job slot limit reached; New job is waiting for scheduling;" if queue == "held" else ""
    limit = options.get("-W")
    hours, minutes = (int(part) for part in limit.split(":")) if limit else (0, 0)
    short = (Path(state) / "short_minutes").exists()
    walltime = (3600 * hours + 60 * minutes) / (60 if short else 1) if limit else None
    fields = {"name": options["-J"], "output": options["-o"], "options": options}
    number = Jobs(Path(state)).add(script, walltime, held, **fields)
    print(f"Job <{number}> is submitted to queue <{queue}>.")
    return 0


def bjobs(state: str, words: list[str]) -> int:
    if _down(state):
        return 255
    known, records, code = Jobs(Path(state)).all(), [], 0
    if "-J" in words:
        pattern = words[words.index("-J") + 1]
        records = [
            _record(number, job)
            for number, job in known.items()
            if job["name"].startswith(pattern.removesuffix("*")) and not job["ended"]
        ]
        if not records:
            return _fail(f"Job <{pattern}> is not found")
    else:
        for word in words[words.index("-o") + 2 :]:
            job = known.get(int(word))
            error = f"Job <{word}> is not found"
            records.append(_record(int(word), job) if job else {"JOBID": word, "ERROR": error})
            code = code if job else 255
    print(json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}, indent=2))
    return code


def bkill(state: str, words: list[str]) -> int:
    if _down(state):
        return 255
    jobs, code = Jobs(Path(state)), 0
    for word in words:
        job = jobs.all().get(int(word))
        if job is None:
            code = _fail(f"Job <{word}>: No matching job found")
        elif job["ended"]:
            code = _fail(f"Job <{word}>: Job has already finished")
        else:
            jobs.end(int(word), "TERM_OWNER: job killed by owner")
            print(f"Job <{word}> is being terminated")
    return code


def _record(number: int, job: dict[str, Any]) -> dict[str, str]:
    end = job["ended"]
    status = "PEND" if job["held"] else "RUN"
    if end:
        status = "DONE" if end["code"] == 0 else "EXIT"
    code = (end or {}).get("code")
    reason = (end or {}).get("why") or ""
    return {
        "JOBID": str(number),
        "STAT": status,
        "EXIT_CODE": str(code if code >= 0 else 128 - code) if code else "",
        "EXIT_REASON": "TERM_RUNLIMIT: job killed after reaching LSF run time limit"
        if reason == "walltime"
        else reason,
        "PEND_REASON": job["held"] if status == "PEND" else "",
        "JOB_NAME": job["name"],
    }


def _directives(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if line.startswith("#BSUB ")]
    return [word for line in lines for word in shlex.split(line.removeprefix("#BSUB "))]


def _options(words: list[str]) -> dict[str, str]:
    """Options by flag."""
    found, rest = {}, iter(words)
    for flag in rest:
        found[flag] = "" if flag in FLAGS else next(rest)
    return found


def _down(state: str) -> bool:
    if not (Path(state) / "down").exists():
        return False
    _fail("Failed in an LSF library call: Slave LIM configuration is not ready yet; LIM is down; try later")
    return True


def _fail(words: str) -> int:
    print(words, file=sys.stderr)
    return 255
