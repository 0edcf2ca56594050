"""A calculator that fails on molecules with a message of its own; for `psiflow.reference("ase", calculator=…)`."""

from __future__ import annotations

from typing import Any, ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator

SAYINGS = {
    "colours": "\x1b[31mred\x1b[0m \x9b2J",
    "markup": "[red]not red[/red] [/] :smiley: <b>not bold</b>",
    "surrogate": "half a pair: \udc80",
    "null": "a \x00 in it",
    "backwards": "\u202eabc",
    "long": "begin " + 20 * 2**20 * "x" + " end",
}


class Unutterable(Exception):
    """An exception that has no message, and fails when it is asked for it."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Talking(Calculator):
    """Fails on all but single atoms.

    Args:
        saying: which of `SAYINGS` is its message, or `unutterable`.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, saying: str, **options: Any) -> None:
        super().__init__(**options)
        self._saying = saying

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = None) -> None:
        assert atoms is not None
        if len(atoms) > 1:
            raise Unutterable if self._saying == "unutterable" else RuntimeError(SAYINGS[self._saying])
        self.results = {"energy": 0.0, "forces": 0.0 * atoms.positions}
