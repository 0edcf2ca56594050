"""Answers of plugins, checked before anything believes them: one place for every kind.

What is a number under another name (numpy's, single precision, a list) is converted. What the contract of
`psiflow_core.components` does not allow is a `WrongAnswer`, which names the plugin.
"""

from psiflow_core.answers.results import Answering as Answering
from psiflow_core.answers.results import asked as asked
from psiflow_core.answers.results import check as check
from psiflow_core.answers.results import disagreeing as disagreeing
from psiflow_core.answers.results import exported as exported
from psiflow_core.answers.results import features as features
from psiflow_core.answers.results import label as label
from psiflow_core.answers.results import predictions as predictions
from psiflow_core.answers.results import resources as resources
from psiflow_core.answers.results import slots as slots
from psiflow_core.answers.results import temperature as temperature
from psiflow_core.answers.results import training as training
from psiflow_core.answers.segments import Attendance as Attendance
from psiflow_core.answers.segments import segment as segment
from psiflow_core.answers.values import an as an
from psiflow_core.answers.values import blame as blame
from psiflow_core.answers.values import blamed as blamed
from psiflow_core.answers.values import in_the_driver as in_the_driver
from psiflow_core.answers.values import named as named
from psiflow_core.answers.values import wrong as wrong
