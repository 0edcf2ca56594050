"""Variables as options: of biases, and of other variables."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from psiflow_core.components import Variable
from psiflow_core.environments.catalogue import one_of


def _variable(given: Any) -> Any:
    return one_of("variable", given)


AnyVariable = Annotated[Variable, BeforeValidator(_variable), SerializeAsAny()]
"""A variable, its name, or the plain data of one."""
