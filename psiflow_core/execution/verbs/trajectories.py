"""The trajectories of walkers for the verb `sample`: known ones, and those that are sampled in legs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from psiflow_core.components import Bias, Prediction, Spec
from psiflow_core.environments.catalogue import one_of
from psiflow_core.errors import FileCorrupt
from psiflow_core.execution.failures import Failure as TaskFailure
from psiflow_core.execution.tasks.perform import RESULT
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.execution.tasks.sample import (
    Ended,
    Lost,
    Met,
    Sampled,
    SamplingRequest,
    WalkerStart,
    keep_walker,
    read_segment,
)
from psiflow_core.execution.verbs.dispatcher import Dispatcher
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.known import known
from psiflow_core.files import write_sealed
from psiflow_core.labels.store import read_structure
from psiflow_core.potentials.trained import Member
from psiflow_core.sampling.batching import batch_size
from psiflow_core.sampling.monitor import Checked, Limits
from psiflow_core.sampling.sample import Trajectory
from psiflow_core.sampling.segments import Segments
from psiflow_core.structures import from_plain


@dataclass(frozen=True)
class LostWalker:
    """A walker without a trajectory."""

    number: int
    """Its number in the order of the argument."""
    failure: TaskFailure

    def __str__(self) -> str:
        return f"walker {self.number}: {self.failure.reason}: {self.failure.told}"


@dataclass(frozen=True)
class Plan:
    """The settings of the walkers' motion."""

    sampler: Spec
    segment: Segments
    bias: Any
    limits: Limits
    seed: int


@dataclass(frozen=True)
class Leg:
    """A walker with the rest of its way. It has several legs if its block ends before its segment does."""

    start: WalkerStart
    steps: int
    before: Trajectory | None = None
    """Its earlier legs."""

    @property
    def number(self) -> int:
        return self.start.walker


Arrival = Trajectory | LostWalker
"""How a walker has ended."""


@dataclass(frozen=True)
class Trajectories:
    """The trajectories of walkers: known, or sampled in groups that fill the workers.

    A walker's result is stored under its own request, so that it is found independently of its group.
    """

    dispatcher: Dispatcher
    members: tuple[Member, ...]
    plan: Plan
    handle: Handle[Any, Trajectory]

    async def of(self, walkers: Sequence[WalkerStart]) -> list[Arrival]:
        """The trajectory of each walker, in order."""
        ended = await self._arrivals([Leg(walker, self.plan.segment.steps) for walker in walkers])
        return [ended[walker.walker] for walker in walkers]

    async def _arrivals(self, legs: Sequence[Leg]) -> dict[int, Arrival]:
        """How the walkers have ended, by their numbers."""
        requests = [self._request([leg]) for leg in legs]
        outcomes = [known(request) for request in requests]
        found = [
            (leg.number, self._read(leg, request, outcome))
            for leg, request, outcome in zip(legs, requests, outcomes, strict=True)
            if outcome is not None
        ]
        groups = self._groups([leg for leg, outcome in zip(legs, outcomes, strict=True) if outcome is None])
        ended: dict[int, Arrival] = {}
        for some in await asyncio.gather(self._completed(found), *map(self._sampled, groups)):
            ended |= some
        return ended

    async def _completed(self, found: Sequence[tuple[int, Arrival | Leg]]) -> dict[int, Arrival]:
        """The same walkers, at the end of all their legs."""
        ended = {number: one for number, one in found if not isinstance(one, Leg)}
        legs = [one for _, one in found if isinstance(one, Leg)]
        return ended | await self._arrivals(legs) if legs else ended

    def _groups(self, legs: Sequence[Leg]) -> list[Sequence[Leg]]:
        """Legs of one length, as few as possible while filling all workers, and no more than an efficient batch."""
        groups: list[Sequence[Leg]] = []
        for steps in sorted({leg.steps for leg in legs}):
            alike = [leg for leg in legs if leg.steps == steps]
            size = self._size(alike)
            groups += [alike[begin : begin + size] for begin in range(0, len(alike), size)]
        return groups

    def _size(self, legs: Sequence[Leg]) -> int:
        workers = self.dispatcher.workers
        capacity = workers.capacity
        slots = capacity.slots[capacity.pool_of["sample"]]
        atoms = max(len(leg.start.set_off().structure) for leg in legs)
        return min(batch_size(atoms, workers.resources("sample").device), math.ceil(len(legs) / slots))

    async def _sampled(self, legs: Sequence[Leg]) -> dict[int, Arrival]:
        request = self._request(legs)
        outcome = await self.dispatcher.finished(request)
        if outcome.failure is not None:
            return {leg.number: LostWalker(leg.number, outcome.failure) for leg in legs}
        if len(legs) == 1:
            return await self._completed([(legs[0].number, self._read(legs[0], request, outcome))])
        found = []
        for leg, told in zip(legs, cast(Sampled, outcome.value).walkers, strict=True):
            alone = self._request([leg])
            kept = _keep(alone, request.own_folder, told, outcome)
            found.append((leg.number, self._read(leg, alone, kept)))
        return await self._completed(found)

    def _request(self, legs: Sequence[Leg]) -> SamplingRequest:
        plan, places = self.plan, self.dispatcher.places
        return places.place(
            SamplingRequest(
                sampler=plan.sampler,
                models=self.members,
                walkers=tuple(leg.start for leg in legs),
                steps=legs[0].steps,
                check_every=plan.segment.check_every,
                stride=plan.segment.stride,
                limits=plan.limits,
                candidates=places.structures,
            )
        )

    def _read(self, leg: Leg, request: SamplingRequest, outcome: Outcome) -> Arrival | Leg:
        (told,) = cast(Sampled, outcome.value).walkers
        if isinstance(told, Lost):
            return LostWalker(leg.number, told.failure)
        segment, memories = read_segment(request.own_folder, told)
        met = None if told.candidate is None else _checked(self.dispatcher.places.structures, told.candidate)
        last = Trajectory(segment, [_bias(spec) for spec in leg.start.bias], memories, met)
        trajectory = last if leg.before is None else _joined(leg.before, last)
        if told.cut and told.steps < leg.steps:
            file = keep_walker(self.dispatcher.places.walkers, segment.walker, memories)
            start = leg.start.model_copy(update={"structure": None, "file": file})
            return Leg(start, leg.steps - told.steps, trajectory)
        self.handle.finished_part(trajectory)
        return trajectory


def _joined(first: Trajectory, second: Trajectory) -> Trajectory:
    """Two trajectories of a walker, one after the other, as one."""
    one, other = first.segment, second.segment
    steps = one.steps + other.steps
    means = {
        name: (one.averages.get(name, mean) * one.steps + mean * other.steps) / max(1, steps)
        for name, mean in other.averages.items()
    }
    segment = replace(other, steps=steps, frames=[*one.frames, *other.frames], averages=means)
    return replace(second, segment=segment, most_uncertain=_more_uncertain(first, second))


def _more_uncertain(first: Trajectory, second: Trajectory) -> Checked | None:
    """The structure with the largest disagreement on the whole way; its step counts from the first one's start."""
    one, other = first.most_uncertain, second.most_uncertain
    if other is None or (one is not None and one.deviation > other.deviation):
        return one
    return replace(other, step=first.segment.steps + other.step)


def _keep(alone: SamplingRequest, group: Path, told: Ended | Lost, outcome: Outcome) -> Outcome:
    """Store a group's outcome for one walker under the walker's own request."""
    if isinstance(told, Ended):
        there = Path("..") / group.name
        trajectory = None if told.trajectory is None else str(there / told.trajectory)
        told = told.model_copy(update={"file": str(there / told.file), "trajectory": trajectory})
    value = Sampled(walkers=[told])
    share = {"value": value.to_plain(), "seconds": outcome.seconds, "worker": outcome.worker}
    alone.own_folder.mkdir(parents=True, exist_ok=True)
    write_sealed(alone.own_folder / RESULT, share)
    return Outcome(outcome.key, value, None, outcome.seconds, outcome.worker)


def _checked(folder: Path, met: Met) -> Checked | None:
    """The stored structure with the largest disagreement of the committee."""
    try:
        record = read_structure(folder, met.structure)
    except FileCorrupt:
        return None
    return Checked(met.step, from_plain(record["structure"]), Prediction.from_plain(record["prediction"]))


def _bias(spec: Spec) -> Bias:
    return cast(Bias, one_of("bias", {"name": spec.name, **spec.options}))
