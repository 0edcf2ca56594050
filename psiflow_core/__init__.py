"""Online learning of interatomic potentials: a minimal core with plugins.

The public names, loaded when they are first used: importing psiflow is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psiflow_core.bias import AseCalculator as AseCalculator
    from psiflow_core.bias import Grid as Grid
    from psiflow_core.bias import Harmonic as Harmonic
    from psiflow_core.bias import LowerWall as LowerWall
    from psiflow_core.bias import Metadynamics as Metadynamics
    from psiflow_core.bias import MovingHarmonic as MovingHarmonic
    from psiflow_core.bias import Plumed as Plumed
    from psiflow_core.bias import UpperWall as UpperWall
    from psiflow_core.catalogue import executor as executor
    from psiflow_core.catalogue import potential as potential
    from psiflow_core.catalogue import reference as reference
    from psiflow_core.catalogue import sampler as sampler
    from psiflow_core.context import Context as Context
    from psiflow_core.environments import adopt as adopt
    from psiflow_core.foreign_labels import read_labelled as read_labelled
    from psiflow_core.learning.online import OnlineLearning as OnlineLearning
    from psiflow_core.learning.online import Result as Result
    from psiflow_core.learning.schemes import Incremental as Incremental
    from psiflow_core.learning.schemes import Umbrella as Umbrella
    from psiflow_core.learning.selection import Bootstrap as Bootstrap
    from psiflow_core.learning.selection import Selection as Selection
    from psiflow_core.learning.stopping import Budget as Budget
    from psiflow_core.learning.stopping import Stopping as Stopping
    from psiflow_core.learning.training import Training as Training
    from psiflow_core.learning.walkers import ErrorThresholds as ErrorThresholds
    from psiflow_core.learning.walkers import PressureRamp as PressureRamp
    from psiflow_core.learning.walkers import Ramp as Ramp
    from psiflow_core.learning.walkers import Segments as Segments
    from psiflow_core.learning.walkers import Walking as Walking
    from psiflow_core.models import TrainedPotential as TrainedPotential
    from psiflow_core.sampling import Limits as Limits
    from psiflow_core.trajectories import Trajectory as Trajectory
    from psiflow_core.trajectories import sample as sample
    from psiflow_core.variables import Angle as Angle
    from psiflow_core.variables import Combination as Combination
    from psiflow_core.variables import Coordination as Coordination
    from psiflow_core.variables import Dihedral as Dihedral
    from psiflow_core.variables import Distance as Distance
    from psiflow_core.variables import Function as Function
    from psiflow_core.variables import Volume as Volume

    __version__: str

_HOMES = {
    "Angle": "variables",
    "AseCalculator": "bias",
    "Bootstrap": "learning.selection",
    "Budget": "learning.stopping",
    "Combination": "variables",
    "Context": "context",
    "Coordination": "variables",
    "Dihedral": "variables",
    "Distance": "variables",
    "ErrorThresholds": "learning.walkers",
    "Function": "variables",
    "Grid": "bias",
    "Harmonic": "bias",
    "Incremental": "learning.schemes",
    "Limits": "sampling",
    "LowerWall": "bias",
    "Metadynamics": "bias",
    "MovingHarmonic": "bias",
    "OnlineLearning": "learning.online",
    "Plumed": "bias",
    "PressureRamp": "learning.walkers",
    "Ramp": "learning.walkers",
    "Result": "learning.online",
    "Segments": "learning.walkers",
    "Selection": "learning.selection",
    "Stopping": "learning.stopping",
    "TrainedPotential": "models",
    "Training": "learning.training",
    "Trajectory": "trajectories",
    "Umbrella": "learning.schemes",
    "UpperWall": "bias",
    "Volume": "variables",
    "Walking": "learning.walkers",
    "adopt": "environments",
    "executor": "catalogue",
    "potential": "catalogue",
    "read_labelled": "foreign_labels",
    "reference": "catalogue",
    "sample": "trajectories",
    "sampler": "catalogue",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("psiflow-core")
    if name not in _HOMES:
        raise AttributeError(f"module 'psiflow_core' has no attribute '{name}'")
    return getattr(import_module(f"psiflow_core.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
