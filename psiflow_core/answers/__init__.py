"""Checks of all answers of plugins, before they are used.

Other number types (numpy's, single precision, a list) are converted. An answer that breaks the contract of
`psiflow_core.components` is a `WrongAnswer`, which names the plugin.
"""

from psiflow_core.answers.results import check as check
from psiflow_core.answers.results import disagreeing as disagreeing
from psiflow_core.answers.results import exported as exported
from psiflow_core.answers.results import label as label
from psiflow_core.answers.results import resources as resources
from psiflow_core.answers.results import slots as slots
from psiflow_core.answers.results import temperature as temperature
from psiflow_core.answers.results import training as training
from psiflow_core.answers.segments import Attendance as Attendance
from psiflow_core.answers.segments import segment as segment
from psiflow_core.components.checking import an as an
from psiflow_core.components.checking import blame as blame
from psiflow_core.components.checking import blamed as blamed
from psiflow_core.components.checking import in_the_driver as in_the_driver
from psiflow_core.components.checking import named as named
from psiflow_core.components.checking import wrong as wrong
from psiflow_core.components.prediction import features as features
from psiflow_core.components.prediction import predictions as predictions
from psiflow_core.components.predictor import Answering as Answering
from psiflow_core.components.predictor import asked as asked
