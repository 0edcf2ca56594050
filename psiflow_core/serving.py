"""The other end of `psiflow_core.served`: a process that does what only its interpreter can.

Run as ``python -m psiflow_core.serving TOKEN``: a request a line, as JSON; an answer a line, with the token before it
(`psiflow_core.frames`) and the request's number in it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from psiflow_core.components import Spec
from psiflow_core.frames import frame
from psiflow_core.models import Member, export_member, load_members
from psiflow_core.plugins import registry
from psiflow_core.structures import Plain, from_plain
from psiflow_core.tasks import failure, perform


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


def respond(request: Plain) -> Plain:
    """The answer to a request, or the error that it met: as text, with the name of its type."""
    try:
        return {"value": answer(request)}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a third party raises, sys.exit among it
        told = failure(error)
        return {"error": told["message"], "type": told["type"], "where": told["where"]}


def main() -> None:
    """Answer requests, a line each, until there are no more."""
    token = sys.argv[1]
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # what libraries read is no request
    os.dup2(2, 1)  # what libraries print is no answer
    for line in requests:
        request = json.loads(line)
        answers.write(frame(token, {"id": request["id"], **respond(request)}))
        answers.flush()


if __name__ == "__main__":
    main()
