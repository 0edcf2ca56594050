"""Variables by their names."""

from __future__ import annotations

from psiflow_core.variables.cell import Volume
from psiflow_core.variables.combination import Combination
from psiflow_core.variables.contract import Variable
from psiflow_core.variables.function import Function
from psiflow_core.variables.geometry import Angle, Coordination, Dihedral, Distance

VARIABLES: tuple[type[Variable], ...] = (Distance, Angle, Dihedral, Coordination, Volume, Function, Combination)
