"""Variables of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from ase import Atoms

from psiflow_core.components import Reading, Variable
from psiflow_core.errors import OptionError


class Volume(Variable):
    """The volume of the cell. [Å³]"""

    name: ClassVar[str] = "volume"

    def read(self, structure: Atoms) -> Reading:
        volume = float(structure.get_volume())
        return Reading(volume, np.zeros((len(structure), 3)), volume * np.eye(3))

    def check(self, structures: Sequence[Atoms]) -> None:
        for structure in structures:
            if not structure.pbc.all():
                formula = structure.get_chemical_formula()
                raise OptionError(
                    f"variable 'volume': {formula} is not periodic in all directions, so it has no volume"
                )
