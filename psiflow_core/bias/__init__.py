"""Biases: energies that are added to what moves a walker, and to nothing else.

Labels, candidates and the committee's spread are never biased. A bias is plain data, in YAML
`{name: harmonic, variable: {name: distance, atoms: [0, 1]}, center: 1.5, stiffness: 10}`.
"""

from psiflow_core.bias.calculator import AseCalculator as AseCalculator
from psiflow_core.bias.contract import Bias as Bias
from psiflow_core.bias.contract import Memory as Memory
from psiflow_core.bias.grid import Grid as Grid
from psiflow_core.bias.metadynamics import Metadynamics as Metadynamics
from psiflow_core.bias.names import BIASES as BIASES
from psiflow_core.bias.names import of_plain as of_plain
from psiflow_core.bias.plumed import Plumed as Plumed
from psiflow_core.bias.predictor import BiasPredictor as BiasPredictor
from psiflow_core.bias.predictor import values as values
from psiflow_core.bias.restraints import Harmonic as Harmonic
from psiflow_core.bias.restraints import LowerWall as LowerWall
from psiflow_core.bias.restraints import MovingHarmonic as MovingHarmonic
from psiflow_core.bias.restraints import UpperWall as UpperWall
from psiflow_core.bias.walker import WalkerBias as WalkerBias
