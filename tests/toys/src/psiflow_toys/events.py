"""Events as tests tell them: what a story does not care about is filled in."""

from __future__ import annotations

from typing import Any

from psiflow_core.learning.machine.events import KINDS, Happening
from psiflow_core.structures import Plain

ANYTHING: dict[str, Plain] = {
    "opened": {
        "configuration": {},
        "versions": {},
        "context": {},
        "homes": [],
        "slots": {},
        "host": "here",
        "clock": {"boot": "", "offset": 0.0},
        "closing": None,
    },
    "labelled": {"error": None, "suspicious": False, "reset": False, "discard": False, "cached": False},
    "sampled": {"potential": "toy"},
    "damaged": {"files": []},
    "interrupted": {"reason": "interrupted", "message": "its block has ended"},
}

ENDS = ("labelled", "trained", "sampled", "scored", "evaluated", "failed", "interrupted")


def happening(kind: str, /, **told: Any) -> Happening:
    """Something that happened, with whatever is not told."""
    ended = {"seconds": 1.0, "worker": "w"} if kind in ENDS else {}
    return KINDS[kind].model_validate({**ended, **ANYTHING.get(kind, {}), **told})


def failed(type: str, reason: str, message: str = "as it goes") -> Plain:
    """A failure of a task, or of a walker."""
    failure = {"type": type, "reason": reason, "message": message, "plugin": "", "where": "", "trace": ""}
    return {"failure": failure, "folder": "f"}


def moved(walker: int, **told: Any) -> Plain:
    """A walker that has moved by a segment."""
    anything = {"file": f"walker {walker}", "digest": "d", "steps": 10, "averages": {}, "finished": False}
    return {"walker": walker, **anything, "stopped": None, **told}


def trained(name: str) -> Plain:
    """A member of a committee."""
    return {"model": {"path": name, "digest": "d"}, "errors": {}}


def predictions() -> Plain:
    """What an evaluation came to."""
    return {"file": "p.json", "digest": "d", "generations": [], "candidates": []}
