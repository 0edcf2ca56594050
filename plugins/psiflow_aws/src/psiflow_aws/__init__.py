"""Amazon EC2 as an executor: workers on instances."""

from __future__ import annotations

from psiflow_core.components import Executor
from psiflow_core.registry.hookspecs import hookimpl


@hookimpl
def psiflow_executors() -> list[type[Executor]]:
    from psiflow_aws.executor import AWS

    return [AWS]
