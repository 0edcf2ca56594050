"""How an instance ended, by the operations that Google kept about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psiflow_core.execution.blocks import BlockState

BY_ITSELF = "compute.instances.guestTerminate"
"""The operation of an instance that shut itself down."""

BEGINNINGS = {"insert", "start", "setLabels", "setMetadata"}

PREFIX = "compute.instances."


@dataclass(frozen=True)
class Operation:
    """What was done to an instance."""

    kind: str
    """`insert`, `delete`, `compute.instances.preempted`, …"""
    user: str
    """The e-mail address of the account that asked for it."""
    message: str
    time: str


def end(operations: Sequence[Operation], own_account: str) -> BlockState:
    """The state of an instance that has ended. A deletion counts only if nothing else ended it before.

    Args:
        own_account: the service account of the instance, by which it deletes itself.
    """
    ends = sorted((one for one in operations if one.kind not in BEGINNINGS), key=lambda one: one.time)
    last = next((one for one in reversed(ends) if one.kind != "delete"), ends[-1] if ends else None)
    if last is None:
        return BlockState("ended", "Google no longer knows the instance")
    by_itself = last.kind == BY_ITSELF or (last.kind == "delete" and bool(own_account) and last.user == own_account)
    if by_itself:
        return BlockState("ended", "the instance ended itself; Cloud Logging has its output, of serial port 1")
    words = ": ".join(filter(None, (last.kind.removeprefix(PREFIX), last.message)))
    return BlockState("ended", f"{words} (by {last.user})" if last.kind == "delete" else words, interrupted=True)
