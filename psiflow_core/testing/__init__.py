"""The contracts as test classes: a plugin's author inherits from them and runs pytest.

    from psiflow_core.testing import ReferenceContract
    from psiflow_mycode.reference import MyReference

    class TestMyReference(ReferenceContract):
        component = MyReference
        options = {"functional": "pbe"}
        expected_failures = {"test_stress_is_the_strain_derivative_of_the_energy": "no stress yet"}

Each check is a method whose name is the claim. A check that is known to fail is named in `expected_failures`
with the reason; it is reported as such, and the day it passes it is an error to keep it there. Fixtures of
the classes (the structures, the data set) can be overridden like any fixture. Needs pytest.
"""

from psiflow_core.testing.component import ComponentContract
from psiflow_core.testing.potential import PotentialContract
from psiflow_core.testing.reference import ReferenceContract
from psiflow_core.testing.sampler import SamplerContract

__all__ = ["ComponentContract", "PotentialContract", "ReferenceContract", "SamplerContract"]
