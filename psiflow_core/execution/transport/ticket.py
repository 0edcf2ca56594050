"""The ticket of a task: how its worker reaches the driver's files."""

from __future__ import annotations

from psiflow_core.identity import Typed


class Ticket(Typed):
    addresses: tuple[str, ...]
    """Addresses of the driver, with the port: workers use the first one that answers."""
    key: str
    """The public key of the driver's depot: it proves the depot's identity, and encrypts the connection."""
    token: str
    """A secret that opens the files of one task."""
