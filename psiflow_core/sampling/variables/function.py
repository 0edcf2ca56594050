"""Variables of users' own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import product
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from pydantic import Field, NonNegativeInt, PositiveFloat

from psiflow_core.components import Reading, Variable
from psiflow_core.errors import OptionError
from psiflow_core.sampling.variables.images import VOIGT, placed, strained, symmetric
from psiflow_core.structures import Array


class Function(Variable):
    """A variable of your own: a function of the structure.

    It returns the value; or value and gradient, shape (atoms, 3); or these and the derivative by a symmetric strain,
    shape (3, 3). What it does not return is found by central differences, six calls for every atom that it depends
    on and twelve for the strain of a periodic structure.
    """

    name: ClassVar[str] = "function"

    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`; the module is imported on the worker."""
    atoms: tuple[NonNegativeInt, ...] | None = None
    """Atoms that it depends on, counted from 0, for the differences; None means all."""
    period: PositiveFloat | None = None
    """After how much it is the same again; None if it does not turn round. [unit of the variable]"""

    @property
    def repeats(self) -> float | None:
        return self.period

    def read(self, structure: Atoms) -> Reading:
        value, *known = self._called(structure)
        gradient = known[0] if known else self._gradient(structure)
        strain = known[1] if len(known) > 1 else self._strain(structure)
        return Reading(float(value), np.asarray(gradient, float), symmetric(np.asarray(strain, float)))

    def check(self, structures: Sequence[Atoms]) -> None:
        for structure in structures:
            if self.atoms and max(self.atoms) >= len(structure):
                formula = structure.get_chemical_formula()
                raise OptionError(f"variable '{self.function}': there is no atom {max(self.atoms)} in {formula}")

    def try_out(self, structures: Sequence[Atoms]) -> None:
        """Import the function and ask it once for each structure.

        Raises:
            OptionError: it cannot be imported, or does not return a number.
        """
        self._imported()
        for structure in structures:
            self._try_out(structure)

    def _try_out(self, structure: Atoms) -> None:
        try:
            reading = self.read(structure.copy())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # somebody else's code
            raise OptionError(f"variable '{self.function}' failed: {type(error).__name__}: {error}") from error
        if reading.gradient.shape != (len(structure), 3) or not np.isfinite(reading.value):
            raise OptionError(f"variable '{self.function}' has to return a number, and a gradient of shape (atoms, 3)")

    def _called(self, structure: Atoms) -> tuple[Any, ...]:
        found = self._imported()(structure)
        return found if isinstance(found, tuple) else (found,)

    def _imported(self) -> Any:
        module, _, name = self.function.partition(":")
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise OptionError(
                f"variable '{self.function}' cannot be imported on the worker ({error}); install it there, or put its "
                "folder on PYTHONPATH"
            ) from error

    def _gradient(self, structure: Atoms) -> Array:
        gradient = np.zeros((len(structure), 3))
        for atom, axis in product(range(len(structure)) if self.atoms is None else self.atoms, range(3)):
            move = np.zeros((len(structure), 3))
            move[atom, axis] = 1.0
            gradient[atom, axis] = self._slope(lambda by, move=move: placed(structure, structure.positions + by * move))
        return gradient

    def _strain(self, structure: Atoms) -> Array:
        found = np.zeros((3, 3))
        for row, column in zip(*VOIGT, strict=True) if structure.pbc.all() else ():
            mode = np.zeros((3, 3))
            mode[row, column] = mode[column, row] = 1.0 if row == column else 0.5
            found[row, column] = found[column, row] = self._slope(lambda by, mode=mode: strained(structure, by * mode))
        return found

    def _slope(self, moved: Any, by: float = 1e-4) -> float:
        ahead, behind = (self._called(moved(step))[0] for step in (by, -by))
        return float((ahead - behind if self.period is None else self.difference(ahead, behind)) / (2 * by))
