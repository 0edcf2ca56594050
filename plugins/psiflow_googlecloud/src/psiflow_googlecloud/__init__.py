"""Google Compute Engine as an executor: workers on instances."""

from __future__ import annotations

from psiflow_core.components import Executor
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_executors() -> list[type[Executor]]:
    from psiflow_googlecloud.executor import GoogleCloud

    return [GoogleCloud]
