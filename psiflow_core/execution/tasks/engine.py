"""Whether a component's engine can be imported on a worker; options are not needed."""

from __future__ import annotations

from typing import ClassVar

from psiflow_core.components import Kind
from psiflow_core.execution.tasks.request import WORK, Grant, Request, Result, Work
from psiflow_core.registry.engines import engine_version, require_engine
from psiflow_core.registry.plugins import registry


class EngineFound(Result):
    engine: str
    """The version of the engine; empty if unknown."""


class EngineRequest(Request):
    """Import an engine."""

    kind: ClassVar[str] = "engine"
    work: ClassVar[Work] = "label"
    result: ClassVar[type[Result]] = EngineFound

    component: Kind
    name: str
    """The name of the component."""

    @property
    def pool(self) -> Work:
        return WORK[self.component]

    def run(self, grant: Grant) -> EngineFound:
        component = registry().find(self.component, self.name).component
        require_engine(component)
        return EngineFound(engine=engine_version(component))
