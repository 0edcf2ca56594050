"""Places: where a task runs, or was lost."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

MANAGER = "PARSL_WORKER_POOL_ID"
"""The environment variable of a worker with the name of its manager."""


@dataclass(frozen=True)
class Place:
    """Where a task ran."""

    block: str
    """The number of its block in its pool, for `Pools.interrupted`."""
    host: str
    """For `Pools.exclude`."""
    manager: str
    """The name of the process that starts the workers of one node, for `Pools.hold`."""


def manager_name(block: str, host: str) -> str:
    """A new name for a manager."""
    return f"{block}@{host}@{uuid.uuid4().hex[:8]}"


def place_of(manager: str) -> Place | None:
    """The place of a manager, by its name; None for another text."""
    words = manager.split("@")
    return Place(words[0], words[1], manager) if len(words) == 3 else None


def place_of_lost(error: BaseException) -> Place | None:
    """Where a task was lost, by Parsl's `ManagerLost` or `WorkerLost`; None if it is not known."""
    name = getattr(error, "manager_id", b"").decode(errors="replace") or str(getattr(error, "hostname", ""))
    return place_of(name)


def own_place() -> Place | None:
    """Where this worker runs; None in a process that is no worker."""
    return place_of(os.environ.get(MANAGER, ""))
