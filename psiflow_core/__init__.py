"""Online learning of interatomic potentials: a minimal core with plugins.

The public names, loaded when they are first used: importing psiflow is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psiflow_core.components import CalculatorPredictor as CalculatorPredictor
    from psiflow_core.components import Prediction as Prediction
    from psiflow_core.components import Predictor as Predictor
    from psiflow_core.components import Spec as Spec
    from psiflow_core.components import Sum as Sum
    from psiflow_core.environments.catalogue import bias as bias
    from psiflow_core.environments.catalogue import executor as executor
    from psiflow_core.environments.catalogue import potential as potential
    from psiflow_core.environments.catalogue import reference as reference
    from psiflow_core.environments.catalogue import sampler as sampler
    from psiflow_core.environments.catalogue import selection as selection
    from psiflow_core.environments.catalogue import variable as variable
    from psiflow_core.environments.environment import adopt as adopt
    from psiflow_core.errors import CampaignError as CampaignError
    from psiflow_core.errors import ContextLeft as ContextLeft
    from psiflow_core.errors import EngineMissing as EngineMissing
    from psiflow_core.errors import EnvironmentUnfit as EnvironmentUnfit
    from psiflow_core.errors import FileCorrupt as FileCorrupt
    from psiflow_core.errors import Interrupted as Interrupted
    from psiflow_core.errors import LabelCorrupt as LabelCorrupt
    from psiflow_core.errors import MembersAlike as MembersAlike
    from psiflow_core.errors import ModelCorrupt as ModelCorrupt
    from psiflow_core.errors import OptionError as OptionError
    from psiflow_core.errors import PluginBroken as PluginBroken
    from psiflow_core.errors import PluginNotFound as PluginNotFound
    from psiflow_core.errors import PoolFailed as PoolFailed
    from psiflow_core.errors import PsiflowError as PsiflowError
    from psiflow_core.errors import ReferenceFailed as ReferenceFailed
    from psiflow_core.errors import StructureError as StructureError
    from psiflow_core.errors import TaskFailed as TaskFailed
    from psiflow_core.errors import TooManyFailures as TooManyFailures
    from psiflow_core.errors import TrainingFailed as TrainingFailed
    from psiflow_core.errors import WalkerExploded as WalkerExploded
    from psiflow_core.errors import WorkerLost as WorkerLost
    from psiflow_core.errors import WrongAnswer as WrongAnswer
    from psiflow_core.execution.context import Context as Context
    from psiflow_core.execution.verbs.handles import Handle as Handle
    from psiflow_core.execution.verbs.handles import as_completed as as_completed
    from psiflow_core.execution.verbs.relax import Relaxation as Relaxation
    from psiflow_core.execution.verbs.relax import Relaxations as Relaxations
    from psiflow_core.execution.verbs.sample import Runs as Runs
    from psiflow_core.labels.dataset import Dataset as Dataset
    from psiflow_core.labels.provenance import Provenance as Provenance
    from psiflow_core.learning.policies.bootstrap import Bootstrap as Bootstrap
    from psiflow_core.learning.policies.conditions import Ramp as Ramp
    from psiflow_core.learning.policies.conditions import Walkers as Walkers
    from psiflow_core.learning.policies.stopping import Budget as Budget
    from psiflow_core.learning.policies.stopping import Stopping as Stopping
    from psiflow_core.learning.policies.training import Training as Training
    from psiflow_core.learning.policies.walkers import ErrorThresholds as ErrorThresholds
    from psiflow_core.learning.policies.walkers import Walking as Walking
    from psiflow_core.online import OnlineLearning as OnlineLearning
    from psiflow_core.online import Result as Result
    from psiflow_core.potentials.predictors import Committee as Committee
    from psiflow_core.potentials.trained import TrainedPotential as TrainedPotential
    from psiflow_core.sampling.bias import AseCalculator as AseCalculator
    from psiflow_core.sampling.bias import Grid as Grid
    from psiflow_core.sampling.bias import Harmonic as Harmonic
    from psiflow_core.sampling.bias import LowerWall as LowerWall
    from psiflow_core.sampling.bias import Metadynamics as Metadynamics
    from psiflow_core.sampling.bias import MovingHarmonic as MovingHarmonic
    from psiflow_core.sampling.bias import Plumed as Plumed
    from psiflow_core.sampling.bias import UpperWall as UpperWall
    from psiflow_core.sampling.monitor import Limits as Limits
    from psiflow_core.sampling.sample import Trajectory as Trajectory
    from psiflow_core.sampling.sample import sample as sample
    from psiflow_core.sampling.schemes import Incremental as Incremental
    from psiflow_core.sampling.schemes import Umbrella as Umbrella
    from psiflow_core.sampling.segments import Segments as Segments
    from psiflow_core.sampling.variables import Angle as Angle
    from psiflow_core.sampling.variables import Combination as Combination
    from psiflow_core.sampling.variables import Coordination as Coordination
    from psiflow_core.sampling.variables import Dihedral as Dihedral
    from psiflow_core.sampling.variables import Distance as Distance
    from psiflow_core.sampling.variables import Function as Function
    from psiflow_core.sampling.variables import Volume as Volume

    __version__: str

_HOMES = {
    "Angle": "sampling.variables",
    "AseCalculator": "sampling.bias",
    "Bootstrap": "learning.policies.bootstrap",
    "Budget": "learning.policies.stopping",
    "CalculatorPredictor": "components",
    "CampaignError": "errors",
    "Combination": "sampling.variables",
    "Committee": "potentials.predictors",
    "Context": "execution.context",
    "ContextLeft": "errors",
    "Coordination": "sampling.variables",
    "Dataset": "labels.dataset",
    "Dihedral": "sampling.variables",
    "Distance": "sampling.variables",
    "EngineMissing": "errors",
    "EnvironmentUnfit": "errors",
    "ErrorThresholds": "learning.policies.walkers",
    "FileCorrupt": "errors",
    "Function": "sampling.variables",
    "Grid": "sampling.bias",
    "Handle": "execution.verbs.handles",
    "Harmonic": "sampling.bias",
    "Incremental": "sampling.schemes",
    "Interrupted": "errors",
    "LabelCorrupt": "errors",
    "Limits": "sampling.monitor",
    "LowerWall": "sampling.bias",
    "MembersAlike": "errors",
    "Metadynamics": "sampling.bias",
    "ModelCorrupt": "errors",
    "MovingHarmonic": "sampling.bias",
    "OnlineLearning": "online",
    "OptionError": "errors",
    "PluginBroken": "errors",
    "PluginNotFound": "errors",
    "Plumed": "sampling.bias",
    "PoolFailed": "errors",
    "Prediction": "components",
    "Predictor": "components",
    "Provenance": "labels.provenance",
    "PsiflowError": "errors",
    "Ramp": "learning.policies.conditions",
    "ReferenceFailed": "errors",
    "Relaxation": "execution.verbs.relax",
    "Relaxations": "execution.verbs.relax",
    "Result": "online",
    "Runs": "execution.verbs.sample",
    "Segments": "sampling.segments",
    "Spec": "components",
    "Stopping": "learning.policies.stopping",
    "StructureError": "errors",
    "Sum": "components",
    "TaskFailed": "errors",
    "TooManyFailures": "errors",
    "TrainedPotential": "potentials.trained",
    "Training": "learning.policies.training",
    "TrainingFailed": "errors",
    "Trajectory": "sampling.sample",
    "Umbrella": "sampling.schemes",
    "UpperWall": "sampling.bias",
    "Volume": "sampling.variables",
    "WalkerExploded": "errors",
    "Walkers": "learning.policies.conditions",
    "Walking": "learning.policies.walkers",
    "WorkerLost": "errors",
    "WrongAnswer": "errors",
    "adopt": "environments.environment",
    "as_completed": "execution.verbs.handles",
    "bias": "environments.catalogue",
    "executor": "environments.catalogue",
    "potential": "environments.catalogue",
    "reference": "environments.catalogue",
    "sample": "sampling.sample",
    "sampler": "environments.catalogue",
    "selection": "environments.catalogue",
    "variable": "environments.catalogue",
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
