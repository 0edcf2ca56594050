"""The contracts as test classes: a plugin's author inherits from them and runs pytest.

    from psiflow_core.testing import ReferenceContract
    from psiflow_mycode.reference import MyReference

    class TestMyReference(ReferenceContract):
        component = MyReference
        options = {"functional": "pbe"}
        expected_failures = {"test_stress_is_the_strain_derivative_of_the_energy": "no stress yet"}

Each check is a method whose name is the claim. A check that is known to fail is named in `expected_failures`
with the reason; it is reported as such, and the day it passes it is an error to keep it there. Fixtures of
the classes (the structures, the data set) can be overridden like any fixture. A check of an ability that is
optional, and that the component says it does not have, is skipped with that reason. Needs pytest.
"""

import pkgutil

import pytest

# Before they are imported: a failed check then shows the values in it, not a bare AssertionError.
pytest.register_assert_rewrite(*(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}.")))

from psiflow_core.testing.bias import BiasContract  # noqa: E402
from psiflow_core.testing.component import ComponentContract  # noqa: E402
from psiflow_core.testing.executor import ExecutorContract  # noqa: E402
from psiflow_core.testing.potential import PotentialContract  # noqa: E402
from psiflow_core.testing.reference import ReferenceContract  # noqa: E402
from psiflow_core.testing.sampler import SamplerContract  # noqa: E402
from psiflow_core.testing.scheduler import SchedulerContract  # noqa: E402
from psiflow_core.testing.selection import SelectionContract  # noqa: E402
from psiflow_core.testing.trainable import TrainablePotentialContract  # noqa: E402
from psiflow_core.testing.variable import VariableContract  # noqa: E402
from psiflow_core.testing.work import WorkContract  # noqa: E402

__all__ = [
    "BiasContract",
    "ComponentContract",
    "ExecutorContract",
    "PotentialContract",
    "ReferenceContract",
    "SamplerContract",
    "SchedulerContract",
    "SelectionContract",
    "TrainablePotentialContract",
    "VariableContract",
    "WorkContract",
]
