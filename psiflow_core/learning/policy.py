"""The base of every policy: options that are checked when they are given, with one sentence for a wrong one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from psiflow_core.components import explain
from psiflow_core.errors import OptionError


class Policy(BaseModel):
    """Options of a campaign, frozen.

    Raises:
        OptionError: an option is unknown, missing or out of range; every problem is named.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise OptionError(explain(error, type(self).__name__, type(self).model_fields)) from None
