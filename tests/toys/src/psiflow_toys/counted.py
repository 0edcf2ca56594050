"""A calculator that writes down every computation, for tests of what is paid for twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator, FileIOCalculator, all_changes

from psiflow_core.components import LabelTask
from psiflow_core.processes.guard import born
from psiflow_core.structures import digest
from psiflow_toys.reference import ToyReference


class Counted(FileIOCalculator):  # type: ignore[misc]
    """The toy reference as an ASE calculator that appends a line to a log when it begins, and when it has finished.

    To psiflow it is one that runs a program: no check computes an isolated atom with it.

    Args:
        log: what lines are appended to, each with the structure's hash, and the process by number and birth.
        delay: time that a computation takes. [s]
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, log: str, delay: float = 0.0, **rest: Any) -> None:
        super().__init__(command="counted", **rest)
        self._log = Path(log)
        self._reference = ToyReference(delay=delay)

    def calculate(self, atoms: Atoms = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        Calculator.calculate(self, atoms, properties or ["energy", "forces"], system_changes)
        self._tell("begun")
        label = self._reference.label(self.atoms, LabelTask(Path(self.directory)))
        self.results = {"energy": label.energy, "forces": label.forces}
        self._tell("finished")

    def _tell(self, what: str) -> None:
        """Append a line, in one piece: several workers do."""
        structure = self.atoms.copy()
        structure.set_initial_magnetic_moments(None)  # with them the reference says the spin once more
        told = {"what": what, "structure": digest(structure), "pid": os.getpid(), "born": born(os.getpid())}
        line = json.dumps(told)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)
