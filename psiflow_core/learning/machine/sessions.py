"""The surroundings of a driver's session: its clock, and the environments of its workers."""

from __future__ import annotations

from psiflow_core.identity import Typed


class Clock(Typed):
    """The journal's clock, for other processes on the same machine."""

    boot: str
    """An identifier of the machine's boot; empty where the system has none."""
    offset: float
    """Offset of the journal's clock from the machine's monotonic clock. [s]"""


class Home(Typed):
    """The environment of components that are used together."""

    components: tuple[str, ...]
    """Their kinds and names."""
    environment: str
    """Empty for the driver's environment."""
    launch: tuple[str, ...]
    """The command of its Python, as separate words."""
    versions: dict[str, str]
