"""Biases: energies added only to the potential that moves a walker.

Labels, candidates and the committee's spread are never biased. A bias is plain data, in YAML
`{name: harmonic, variable: {name: distance, atoms: [0, 1]}, center: 1.5, stiffness: 10}`.
"""

from psiflow_core.sampling.bias.along import AlongOne as AlongOne
from psiflow_core.sampling.bias.along import AlongVariables as AlongVariables
from psiflow_core.sampling.bias.calculator import AseCalculator as AseCalculator
from psiflow_core.sampling.bias.dataset import values as values
from psiflow_core.sampling.bias.grid import Grid as Grid
from psiflow_core.sampling.bias.metadynamics import Metadynamics as Metadynamics
from psiflow_core.sampling.bias.plumed import Plumed as Plumed
from psiflow_core.sampling.bias.restraints import Harmonic as Harmonic
from psiflow_core.sampling.bias.restraints import LowerWall as LowerWall
from psiflow_core.sampling.bias.restraints import MovingHarmonic as MovingHarmonic
from psiflow_core.sampling.bias.restraints import UpperWall as UpperWall
from psiflow_core.sampling.bias.walker import WalkerBias as WalkerBias
