"""Variables over data sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from psiflow_core.components import Variable
from psiflow_core.structures import Array


def values(structures: Sequence[Atoms], variable: Variable) -> Array:
    """A variable over a data set, shape (structures,). [unit of the variable]

    Raises:
        OptionError: a structure does not have this variable.
    """
    variable.check(structures)
    return np.array([variable.value(structure) for structure in structures])
