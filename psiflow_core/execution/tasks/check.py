"""Whether a component works on a worker: its engine can be imported, and it accepts the structures."""

from __future__ import annotations

from typing import ClassVar, cast

from psiflow_core import answers
from psiflow_core.components import Sampler, Spec
from psiflow_core.execution.tasks.acting import acting
from psiflow_core.execution.tasks.engine import EngineFound
from psiflow_core.execution.tasks.request import WORK, Grant, Request, Result, Work
from psiflow_core.identity import Structure, Typed
from psiflow_core.registry.engines import engine_version, require_engine
from psiflow_core.registry.plugins import build
from psiflow_core.sampling.monitor import refuse_hot


class Departure(Typed):
    """The start of walkers, for the check of a sampler."""

    structures: tuple[Structure, ...]
    """Starting structures."""
    bias: tuple[Spec, ...]
    """Biases of their first segment."""
    temperature_quantile: float
    """As in `Limits`."""

    def refuse(self, sampler: Sampler, who: str) -> None:
        """Refuse starts at which the monitor would stop at once; raises `StructureError`, `OptionError`."""
        temperature = answers.temperature(sampler, who)
        refuse_hot(self.structures, temperature, self.temperature_quantile)
        for spec in self.bias:
            acting(spec).try_out(self.structures, temperature)


class CheckRequest(Request):
    """Build a component, import its engine, and let it check structures."""

    kind: ClassVar[str] = "check"
    work: ClassVar[Work] = "label"
    result: ClassVar[type[Result]] = EngineFound

    component: Spec
    beside: tuple[Spec, ...] = ()
    """Components that its tasks need in the same environment."""
    structures: tuple[Structure, ...] = ()
    departure: Departure | None = None
    """Of a sampler: the start of its walkers."""

    @property
    def pool(self) -> Work:
        return WORK[self.component.kind]

    @property
    def needs(self) -> tuple[Spec, ...]:
        return (self.component, *self.beside)

    def run(self, grant: Grant) -> EngineFound:
        component, who = build(self.component), answers.named(self.component)
        require_engine(component)
        answers.check(component, self.structures, who)
        if self.departure is not None:
            self.departure.refuse(cast(Sampler, component), who)
        return EngineFound(engine=engine_version(component))
