"""Collective variables: a number that says where a structure is, and how it changes with atoms and cell.

A variable is plain data, in YAML `{name: distance, atoms: [0, 1]}`. Where a structure is periodic, the vector between
two atoms is the shortest of all its images.
"""

from psiflow_core.variables.cell import Volume as Volume
from psiflow_core.variables.combination import Combination as Combination
from psiflow_core.variables.combination import functions as functions
from psiflow_core.variables.contract import AnyVariable as AnyVariable
from psiflow_core.variables.contract import Named as Named
from psiflow_core.variables.contract import Reading as Reading
from psiflow_core.variables.contract import Variable as Variable
from psiflow_core.variables.contract import choose as choose
from psiflow_core.variables.dataset import values as values
from psiflow_core.variables.function import Function as Function
from psiflow_core.variables.geometry import Angle as Angle
from psiflow_core.variables.geometry import Coordination as Coordination
from psiflow_core.variables.geometry import Dihedral as Dihedral
from psiflow_core.variables.geometry import Distance as Distance
from psiflow_core.variables.images import VOIGT as VOIGT
from psiflow_core.variables.images import nearest as nearest
from psiflow_core.variables.images import strained as strained
from psiflow_core.variables.names import VARIABLES as VARIABLES
