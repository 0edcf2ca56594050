"""The jobs in the answer of `bjobs -json`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from psiflow_core.execution.blocks import BlockState, SchedulerUnavailable

FIELDS = "jobid stat exit_code exit_reason pend_reason job_name"
"""The fields that are asked for; LSF's names of them in JSON are in capitals."""

WAITING = {"PEND", "PSUSP", "WAIT", "PROV"}
ENDED = {"DONE", "EXIT", "ZOMBI"}

OWN_FAULT = (
    *("TERM_MEMLIMIT", "TERM_SWAP", "TERM_CPULIMIT", "TERM_PROCESSLIMIT", "TERM_THREADLIMIT", "TERM_CWD_NOTEXIST"),
    "TERM_UNKNOWN",
)
"""Reasons of LSF to end a job for what it did. All other reasons that begin with TERM_ are LSF's or a person's: the
run limit, preemption, a host that failed, bkill."""


def read(text: str) -> dict[str, dict[str, str]]:
    """The fields of each job, by its id; jobs that LSF does not know are left out.

    Raises:
        SchedulerUnavailable: the answer is no JSON: an error of a server.
    """
    if not text.strip():
        return {}
    try:
        records = json.loads(text, strict=False)["RECORDS"]
    except (ValueError, KeyError, TypeError) as error:
        raise SchedulerUnavailable(f"bjobs does not answer in JSON: {text.strip()[:200]}") from error
    return {one["JOBID"]: one for one in records if "ERROR" not in one}


def has_ended(fields: Mapping[str, str]) -> bool:
    return fields.get("STAT") in ENDED


def state(fields: Mapping[str, str]) -> BlockState:
    """The state of a job. One that is suspended, or whose host does not answer (UNKWN), still holds its slots."""
    status = fields.get("STAT", "")
    if status in ENDED:
        return _ended(fields)
    if status in WAITING:
        return BlockState("waiting", _one_line(fields.get("PEND_REASON", "")))
    return BlockState("running", "" if status == "RUN" else status)


def _ended(fields: Mapping[str, str]) -> BlockState:
    if fields["STAT"] == "DONE":
        return BlockState("ended", code=0)
    words = _one_line(fields.get("EXIT_REASON", ""))
    interrupted = words.startswith("TERM_") and not words.startswith(OWN_FAULT)
    code = fields.get("EXIT_CODE", "")
    return BlockState("ended", words, interrupted, int(code) if code.isdigit() and not interrupted else None)


def _one_line(text: str) -> str:
    return "" if text.strip() == "-" else " ".join(text.split())
