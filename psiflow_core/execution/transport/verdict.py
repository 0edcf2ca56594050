"""Sends the driver the reason why a guard ends a task, before it does: the task's folder is not the driver's.

Run as ``python -m psiflow_core.execution.transport.verdict FOLDER``, with the local folder of the task.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from psiflow_core.execution.transport.courier import courier_of
from psiflow_core.execution.transport.ticket import Ticket
from psiflow_core.execution.transport.waybill import Cargo
from psiflow_core.files import file_digest
from psiflow_core.processes.limits import VERDICT

TICKET = "ticket.json"
"""The file with the ticket of a task, at the root of its local paths."""


def keep_ticket(root: Path, ticket: Ticket) -> None:
    """Keep the ticket of a task for its guard, and for this user only."""
    file = root / TICKET
    file.touch(mode=0o600)
    file.write_text(json.dumps(ticket.to_plain()))


def sending(folder: Path | None, ticket: Ticket | None) -> tuple[str, ...]:
    """The words of the command that sends a verdict; none if the driver sees the folder."""
    return () if folder is None or ticket is None else (sys.executable, "-m", __name__, str(folder))


def main() -> None:
    folder = Path(sys.argv[1])
    root = next(parent for parent in folder.parents if (parent / TICKET).is_file())
    ticket = Ticket.from_plain(json.loads((root / TICKET).read_text()))
    file = folder / VERDICT
    path = Path("/") / file.relative_to(root)
    cargo = Cargo(path=path, digest=file_digest(file), size=file.stat().st_size)
    courier_of(ticket).bring(ticket.token, [(cargo, file)])


if __name__ == "__main__":
    main()
