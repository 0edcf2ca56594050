"""The biases of requests, as specs; they may come from plugins."""

from __future__ import annotations

from collections.abc import Iterable

from psiflow_core.components import Bias, Spec
from psiflow_core.errors import OptionError
from psiflow_core.registry.plugins import build


def acting(spec: Spec) -> Bias:
    """The bias of a spec.

    Raises:
        OptionError: the spec is a scheme, from which the driver has to make biases.
    """
    bias = build(spec)
    if not isinstance(bias, Bias):
        raise OptionError(
            f"bias '{bias.name}' makes a different bias for each walker, in the driver: install its plugin in the "
            "driver's environment too"
        )
    return bias


def plugins_of(specs: Iterable[Spec]) -> tuple[Spec, ...]:
    """The components and their parts, each once: one environment has to contain them all."""
    return tuple({part.digest: part for spec in specs for part in spec.all}.values())
