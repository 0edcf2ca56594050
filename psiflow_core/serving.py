"""The other end of `psiflow_core.served`: a process that does what only its interpreter can.

Run as ``python -m psiflow_core.serving``: a request a line, an answer a line, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from psiflow_core.components import Spec
from psiflow_core.models import Member, export_member, load_members
from psiflow_core.plugins import registry
from psiflow_core.structures import Plain, from_plain
from psiflow_core.tasks import perform


def answer(request: Plain) -> Any:
    """What a request asks of a component, a task or a model of this interpreter."""
    if request["do"] == "parse":
        spec = Spec.from_plain(request["spec"])
        return registry().find(spec.kind, spec.name).spec(spec.options).to_plain()
    if request["do"] == "perform":
        return perform(request["kind"], request["task"])
    member = Member.from_plain(request["model"])
    registry().find("potential", member.potential.name)  # it is here, or this is the end of it
    if request["do"] == "export":
        return str(export_member(member, Path(request["folder"]), request["stem"]))
    (predictor,) = load_members([member], request["device"])
    if request["do"] == "cutoff":
        return predictor.cutoff
    structures = [from_plain(plain) for plain in request["structures"]]
    if request["do"] == "features":
        return [one.tolist() for one in predictor.features(structures)]
    return [one.to_plain() for one in predictor.predict(structures)]


def main() -> None:
    """Answer requests, a line each, until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    for line in sys.stdin:
        try:
            told: Plain = {"value": answer(json.loads(line))}
        except Exception as error:  # errors cross the border as text, with the name of their type
            told = {"error": str(error) or type(error).__name__, "type": type(error).__name__}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
