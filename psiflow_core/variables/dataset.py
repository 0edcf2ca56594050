"""Variables over data sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from psiflow_core.structures import Array
from psiflow_core.variables.contract import Variable


def values(structures: Sequence[Atoms], variable: Variable) -> Array:
    """A variable over a data set, shape (structures,). [unit of the variable]

    Raises:
        OptionError: a structure does not have this variable.
    """
    for structure in structures:
        variable.check(structure)
    return np.array([variable.value(structure) for structure in structures])
