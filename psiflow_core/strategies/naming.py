"""The strategy of a campaign, as a setting."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from psiflow_core.components import OnlineStrategy
from psiflow_core.environments.catalogue import one_of
from psiflow_core.errors import OptionError


def _strategy(given: Any) -> Any:
    strategy = one_of("selection", given)
    if not isinstance(strategy, OnlineStrategy):
        raise OptionError(
            f"selection '{strategy.name}' compares all candidates at once, and a campaign meets them one by one: use "
            "it in a loop of your own, psiflow.selection(…).choose(…); a campaign takes 'uncertain', for instance"
        )
    return strategy


AnyStrategy = Annotated[OnlineStrategy, BeforeValidator(_strategy), SerializeAsAny()]
"""A strategy that a campaign can follow, its name, or the plain data of one."""
