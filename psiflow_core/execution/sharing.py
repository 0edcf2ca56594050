"""Which pool does which kind of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from psiflow_core.components import Component, Spec
from psiflow_core.environments.catalogue import as_spec
from psiflow_core.errors import OptionError
from psiflow_core.execution.tasks.request import Work


@dataclass(frozen=True)
class Capacity:
    """The capacity of workers: the pool of each kind of work, and the number of tasks in each pool."""

    pool_of: dict[str, str]
    slots: dict[str, int]


def shared(
    everything: Spec | Component | str, given: dict[str, Spec | Component | str | None]
) -> tuple[dict[str, Spec], dict[str, str]]:
    """Name the pools; the same object given twice is one pool."""
    specs: dict[str, Spec] = {}
    pool_of: dict[str, str] = {}
    names: dict[int, str] = {}
    for work in get_args(Work):
        wanted = given[work] if given[work] is not None else everything
        assert wanted is not None
        if id(wanted) not in names:
            users = [other for other in get_args(Work) if (given[other] or everything) is wanted]
            names[id(wanted)] = "-".join(users) if len(users) < len(given) else "all"
            spec = as_spec("executor", wanted)
            if spec.kind != "executor":
                raise OptionError(f"Context({work}=…) takes an executor, not a {spec.kind} ('{spec.name}')")
            specs[names[id(wanted)]] = spec
        pool_of[work] = names[id(wanted)]
    return specs, pool_of
