"""The server of `psiflow_core.potentials.remote`: it answers requests that need its environment.

Run as ``python -m psiflow_core.execution.serve TOKEN``: a request a line, as JSON; an answer a line, with the token
before it (`psiflow_core.processes.messages`) and the request's number in it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from psiflow_core.components import Spec
from psiflow_core.environments.catalogue import spec_by
from psiflow_core.execution.failures import failure
from psiflow_core.execution.tasks.perform import perform
from psiflow_core.potentials.trained import Member, export_member, load_members
from psiflow_core.processes.messages import frame
from psiflow_core.registry.plugins import registry
from psiflow_core.structures import Plain, from_plain


def answer(request: Plain) -> Any:
    """The answer of a component, a task or a model of this interpreter."""
    if request["do"] == "parse":
        spec = Spec.from_plain(request["spec"])
        return spec_by(registry().find(spec.kind, spec.name), spec.options).to_plain()
    if request["do"] == "perform":
        return perform(request["kind"], request["request"], request["grant"])
    member = Member.from_plain(request["model"])
    registry().find("potential", member.potential.name)  # raises an error if the plugin is missing
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
    """The answer to a request, or its error as a `Failure`."""
    try:
        return {"value": answer(request)}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # anything from a third party, also sys.exit
        return {"error": failure(error).to_plain()}


def main() -> None:
    """Answer requests, one per line, until the input ends."""
    token = sys.argv[1]
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # libraries must not read requests
    os.dup2(2, 1)  # output of libraries must not mix with answers
    for line in requests:
        request = json.loads(line)
        answers.write(frame(token, {"id": request["id"], **respond(request)}))
        answers.flush()


if __name__ == "__main__":
    main()
