"""Collective variables: a number that says where a structure is, and how it changes with atoms and cell.

A variable is plain data, in YAML `{name: distance, atoms: [0, 1]}`. Where a structure is periodic, the vector between
two atoms is the shortest of all its images.
"""

from psiflow_core.sampling.variables.cell import Volume as Volume
from psiflow_core.sampling.variables.combination import Combination as Combination
from psiflow_core.sampling.variables.dataset import values as values
from psiflow_core.sampling.variables.function import Function as Function
from psiflow_core.sampling.variables.geometry import Angle as Angle
from psiflow_core.sampling.variables.geometry import Coordination as Coordination
from psiflow_core.sampling.variables.geometry import Dihedral as Dihedral
from psiflow_core.sampling.variables.geometry import Distance as Distance
from psiflow_core.sampling.variables.images import VOIGT as VOIGT
from psiflow_core.sampling.variables.images import nearest as nearest
from psiflow_core.sampling.variables.images import strained as strained
from psiflow_core.sampling.variables.naming import AnyVariable as AnyVariable
