"""An ASE calculator as an addition to the potential."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, cast

from ase import Atoms
from pydantic import Field, JsonValue, field_validator

from psiflow_core import answers
from psiflow_core.components import Bias, LabelTask, Memory, Prediction, Reference, Spec
from psiflow_core.components.options import in_full
from psiflow_core.constraints import unconstrained
from psiflow_core.registry.plugins import build


class AseCalculator(Bias):
    """The energy of an ASE calculator, times a weight: the baseline of a correction, or a wall of ASE's."""

    name: ClassVar[str] = "ase"

    calculator: str
    """`emt`, `lj`, `tblite`, another name that ASE knows, or `package.module:Class`."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the calculator, in the units of its documentation. The path of a file that is there
    when the option is given is taken in full."""
    weight: float = 1.0
    """Factor of its energy. [1]"""

    @field_validator("parameters")
    @classmethod
    def _in_full(cls, given: dict[str, JsonValue]) -> Any:
        return in_full(given)

    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        with TemporaryDirectory() as folder:  # for calculators that run a program
            found = self._reference.label(unconstrained(structure), LabelTask(Path(folder)))
        label = answers.label(found, structure, f"calculator '{self.calculator}' of bias 'ase'")
        stress = None if label.stress is None else self.weight * label.stress
        return Prediction(self.weight * label.energy, self.weight * label.forces, stress)

    def try_out(self, structures: Sequence[Atoms], temperature: float | None) -> None:
        self._reference.check(structures)

    @cached_property
    def _reference(self) -> Reference:
        """The reference for ASE calculators, which checks their parameters and handles their failures."""
        options = {"calculator": self.calculator, "parameters": self.parameters}
        return cast(Reference, build(Spec("reference", "ase", options)))
